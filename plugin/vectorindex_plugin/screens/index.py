"""The screen of `get`: an index on one page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from vectorindex_plugin.facts.index import IndexFacts
from vectorindex_plugin.facts.revision import PodFacts, RevisionFacts
from vectorindex_plugin.screens.style import colour, field
from vectorindex_plugin.screens.tables import guardrails, recall
from vectorindex_plugin.words import age, size

_SAID = {
    ("Ready", "False"): "not ready",
    ("UpToDate", "False"): "edits",
    ("RollbackPossible", "False"): "way back",
    **{("FreshRows", status): "fresh" for status in ("True", "False", "Unknown")},
}
"""Conditions that say more than the first lines do -> the word before their message."""


def screen(facts: IndexFacts, now: float) -> RenderableType:
    """Phase and why, what it waits for, what comes next, and each revision as a tree."""
    reason = f" ({facts.reason})" if facts.reason not in ("", facts.phase) else ""
    lines: list[RenderableType] = [
        Text.assemble((f"{facts.namespace}/{facts.name}", "bold"), "  ", colour(facts.phase), reason),
        field("why", facts.why),
        *(field("waits", f"{row.rule} {row.subject}: {row.message}") for row in facts.waits_for),
        *(field(_SAID[key], one.message) for one in facts.conditions if (key := (one.type_, one.status)) in _SAID),
        field("next", facts.next),
    ]
    for one in facts.revisions:
        lines += [Text(""), revision(one, now)]
    lines += [Text(f"\n{kind}: not shown, {words}", style="dim") for kind, words in facts.hidden.items()]
    return Group(*lines)


def revision(one: RevisionFacts, now: float) -> Tree:
    """A revision with its proof, its pods and its guardrails."""
    since = f" for {age(one.since, now)}" if one.since else ""
    head = Text.assemble((one.name, "bold"), "  ", ", ".join(one.roles), "  " if one.roles else "", colour(one.phase))
    share = f", {one.share} % of the gateway's traffic" if one.share is not None else ""
    tree = Tree(head.append(since + share + (", paused" if one.paused else "")), guide_style="dim")
    for line in _facts(one):
        tree.add(Text(line))
    if one.replicas or one.pods:
        pods = tree.add(Text(f"pods {one.ready}/{one.replicas} ready"))
        for pod in one.pods:
            pods.add(_pod(pod))
    if one.guardrails:
        tree.add(guardrails(one.guardrails))
        for row in one.guardrails:
            if row.verdict in ("Fail", "Error") and row.message not in one.message:
                tree.add(Text(row.message or row.reason, style="red"))
    return tree


def _facts(one: RevisionFacts) -> Iterator[str]:
    if one.message and not one.message.startswith("recall@"):  # that of the gate, which stands below
        yield one.message
    if one.recall is not None:
        yield recall(one.recall)
    parts = [one.factory, *([f"{one.shards} shards"] if one.shards else [])]
    if one.rows is not None:
        parts.append(f"{one.rows:,} rows")
    if one.p95_ms is not None:
        parts.append(f"p95 {one.p95_ms:.3g} ms")
    if one.memory_bytes is not None:
        parts.append(f"{size(one.memory_bytes)} in memory")
    if one.device:
        parts.append(f"built on {one.device}")
    yield ", ".join(parts)


def _pod(pod: PodFacts) -> Text:
    line = Text.assemble(pod.name, "  ", colour(pod.state))
    if pod.restarts:
        line.append(f", {pod.restarts} restarts")
    return line.append(f": {pod.why}") if pod.why else line
