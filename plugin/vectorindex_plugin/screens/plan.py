"""The screen of `plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vectorindex_plugin.facts.plan import PlanFacts
from vectorindex_plugin.planning import Effect
from vectorindex_plugin.screens.style import Columns

_DEAR = frozenset({Effect.BUILD, Effect.PROVE, Effect.ROLL_OUT, Effect.MOVE, Effect.GIVE_UP, Effect.LIST})


def screen(facts: PlanFacts) -> RenderableType:
    """What is edited, what comes of it, and what that takes."""
    return Group(*_lines(facts))


def _lines(facts: PlanFacts) -> Iterator[RenderableType]:
    name = f"{facts.namespace}/{facts.name}"
    edits = "it is new" if facts.new else ", ".join(facts.changes) or "nothing is edited"
    yield Text.assemble((name, "bold"), f"  {edits}")
    if not facts.effects:
        yield Text("Nothing  nothing is built, proven, rolled out or restarted", style="green")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in facts.effects:
        style = "yellow" if one.effect in _DEAR else ""
        grid.add_row(Text(one.effect, style=style), f"{one.revision}: {one.message}" if one.revision else one.message)
    if facts.effects:
        yield grid
    if facts.needs:
        yield Text("")
        table = Columns(("NEEDS", "PODS", "REQUESTS", "LIMITS"), ("LIMITS",))
        for need in facts.needs:
            table.add(need.what, str(need.pods), _quantities(need.requests), _quantities(need.limits))
        yield table
        yield from (Text(f"{need.what}: {need.note}") for need in facts.needs if need.note)
    if facts.at_once:
        yield Text("")
        table = Columns(("AT ONCE", "PODS", "REQUESTS", "LIMITS"), ("LIMITS",))
        for moment in facts.at_once:
            table.add(moment.when, str(moment.pods), _quantities(moment.requests), _quantities(moment.limits))
        yield table
    for quota in facts.quotas:
        yield from (Text(f"ResourceQuota {quota.name}: {words}", style="yellow") for words in quota.lacks)
        if not quota.lacks:
            yield Text(f"ResourceQuota {quota.name} has room for it", style="green")
    yield from (Text(note, style="dim") for note in facts.notes)


def _quantities(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in given.items())
