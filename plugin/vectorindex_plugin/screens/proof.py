"""The screen of `report`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from vectorindex_plugin.facts.proof import ClassFacts, GainFacts, ProofFacts
from vectorindex_plugin.screens.style import Columns, colour, field

_GIVEN_BACK = "the source has no vectors, so exact search is among those that the imported index gives back"


def screen(facts: ProofFacts) -> RenderableType:
    """Verdict, recall of each class of queries, times, and where the page is."""
    judged = f"{facts.reason}: {facts.message}" if facts.reason else "it was not judged yet"
    table = Columns(
        ("QUERIES", "COUNT", f"RECALL@{facts.k}", "AT LEAST", "MRR", "RELEVANCE", "JUDGED"), ("MRR", "JUDGED")
    )
    for row in facts.classes:
        table.add(*_cells(row))
    cost = f", {facts.cost_us:,.0f} us of CPU a query" if facts.cost_us is not None else ""
    times = f"p50 {facts.p50_ms:.3g} ms, p95 {facts.p95_ms:.3g} ms{cost}; canary queries {facts.canary_recall:.4f}"
    lines: list[RenderableType] = [
        Text.assemble((facts.revision, "bold"), "  ", colour(facts.verdict or "-"), f"  {facts.rows:,} rows"),
        field("verdict", judged),
        *([field("truth", f"recall@{facts.k} of reconstructions: {_GIVEN_BACK}")] if facts.truth != "Vectors" else []),
        field("times", times),
        *([field("live", facts.live)] if facts.live else []),
        *([field("reranking", _gain(facts.reranking))] if facts.reranking is not None else []),
        field("page", facts.page),
        Text(""),
        table,
        Text(f"\nbounds with {facts.confidence:.0%} confidence", style="dim"),
    ]
    return Group(*lines)


def _gain(facts: GainFacts) -> str:
    if not facts.queries:
        return "not measured: no labelled query has a text"
    figures = (("MRR", facts.mrr, facts.mrr_gain), ("nDCG@10", facts.ndcg, facts.ndcg_gain))
    said = (f"{name} {a:.3f} -> {b:.3f} ({low:+.3f} to {high:+.3f})" for name, (a, b), (low, high) in figures)
    return f"{', '.join(said)} on {facts.queries:,} labelled queries"


def _cells(row: ClassFacts) -> tuple[str, ...]:
    mrr, relevance = (f"{one:.3f}" if one is not None else "" for one in (row.mrr, row.relevance_mrr))
    judged = {True: "yes", False: "no", None: ""}[row.judged]
    return row.name, f"{row.queries:,}", f"{row.recall:.4f}", f"{row.low:.4f}", mrr, relevance, judged
