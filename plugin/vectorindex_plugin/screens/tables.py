"""Screens of `list`, `history`, `why` and `diff`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_plugin.facts.decisions import DecisionFacts
from vectorindex_plugin.facts.difference import DiffFacts
from vectorindex_plugin.facts.index import RowFacts
from vectorindex_plugin.facts.revision import GuardrailFacts, RecallFacts, RevisionFacts
from vectorindex_plugin.screens.style import Columns, colour, field
from vectorindex_plugin.words import age, size, span


def listing(rows: Iterable[RowFacts], now: float, *, namespaces: bool) -> RenderableType:
    """One line for each index. `namespaces`: with its namespace."""
    head = ("NAME", "PHASE", "STABLE", "CANDIDATE", "RECALL", "READY", "ROLLED OUT", "REASON", "AGE")
    table = Columns(("NAMESPACE", *head) if namespaces else head, ("AGE", "RECALL", "REASON", "CANDIDATE", "STABLE"))
    for row in rows:
        cells = (
            row.name,
            colour(row.phase),
            row.stable,
            row.candidate,
            row.recall,
            row.ready,
            row.rolled_out,
            row.reason,
            age(row.created_at, now),
        )
        table.add(*((row.namespace, *cells) if namespaces else cells))
    return table


def history(revisions: Iterable[RevisionFacts], now: float) -> RenderableType:
    """One line for each revision, and below it why it ended where it did."""
    head = ("REVISION", "PHASE", "SINCE", "RECALL", "P95", "SIZE", "ROWS", "ROLE", "MADE")
    table = Columns(head, ("MADE", "SIZE", "P95", "ROWS", "ROLE", "RECALL"))
    for one in revisions:
        table.add(
            one.name,
            colour(one.phase),
            age(one.since, now),
            f"{one.recall.recall:.4f}" if one.recall is not None else "",
            f"{one.p95_ms:.3g} ms" if one.p95_ms is not None else "",
            size(one.index_bytes) if one.index_bytes is not None else "",
            f"{one.rows:,}" if one.rows is not None else "",
            ", ".join(one.roles),
            age(one.created_at, now),
        )
    said = [Text.assemble((f"{one.name}  ", "bold"), one.message) for one in revisions if one.message]
    return Group(table, *([Text("")] if said else []), *said)


def decision(one: DecisionFacts, now: float) -> RenderableType:
    """The last decision: what, by which rule, with which numbers, and where the runbook is."""
    when = f"{span(now - to_unix(one.at))} ago ({one.at})"
    lines: list[RenderableType] = [
        Text.assemble(colour(one.what), f"  {one.revision}  {when}"),
        field("rule", one.rule),
        field("reason", f"{one.reason}: {one.message}" if one.message else one.reason),
    ]
    if one.recall is not None:
        lines.append(field("recall", recall(one.recall)))
    if one.guardrails:
        lines += [Text(""), guardrails(one.guardrails), Text("")]
    if one.runbook:
        lines.append(field("runbook", one.runbook))
    return Group(*lines)


def recall(one: RecallFacts) -> str:
    """Recall with its bound."""
    bound = f"at least {one.low:.4f} with {one.confidence:.0%} confidence, {one.queries:,} queries"
    of = " of reconstructions" if one.truth == "Reconstructions" else ""
    return f"recall@{one.k}{of} {one.recall:.4f} ({bound})"


def guardrails(rows: Iterable[GuardrailFacts]) -> Columns:
    """One line for each rule."""
    table = Columns(("GUARDRAIL", "METRIC", "VERDICT", "VALUE", "LIMIT", "SAMPLES"), ("METRIC", "SAMPLES"))
    for row in rows:
        name = f"{row.rule} ({row.segment})" if row.segment else row.rule
        samples = f"{row.samples:,}" if row.verdict else ""
        table.add(name, row.metric, colour(row.verdict or "-"), row.value, row.limit, samples)
    return table


def difference(facts: DiffFacts) -> RenderableType:
    """A line for each thing that differs."""
    if not facts.changes:
        return Text(f"nothing tells {facts.before} from {facts.after}")
    table = Columns(("PART", "WHAT", facts.before, facts.after), ("PART",))
    for change in facts.changes:
        table.add(change.part, change.name, change.before, change.after)
    return table
