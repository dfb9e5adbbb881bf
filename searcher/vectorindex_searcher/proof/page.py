"""report.html: a report as one self-contained page. No script, no external resource; light and dark.

Made of the report alone, so the same report gives the same page. Built as an element tree: every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree  # builds only, never parses

from ..contract import ENCODER_COSINE, FEW_QUERIES, EncoderProof, Gain, RerankProof, SegmentRecall
from ..index.sizes import size_text
from .live.report import LiveReport
from .picture import Mark, frontier_picture
from .report import HeldOut, Report, SegmentPoint

OF_RECONSTRUCTIONS = (
    "Measured against what the index gives back: the source has no vectors, so nothing is known of what its codes lost."
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5c6670; --rule: #d4d9de;
  --line: #4a6fa5; --default: #0b5fb0; --conservative: #6a4c93; --segment: #9a5b00; --floor: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #16191d; --soft: #9aa4ae; --rule: #363c43;
  --line: #86a8d9; --default: #7db7f5; --conservative: #c0a2ea; --segment: #e5a84b; --floor: #f28b82; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.lead { font-size: 1.05rem; } .soft, caption { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; } code { font-size: .85em; overflow-wrap: anywhere; }
svg.frontier { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } svg text.label { font-weight: 700; font-size: 13px; }
.grid { stroke: var(--rule); stroke-width: .6; } .axis { stroke: var(--soft); }
.curve { fill: none; stroke: var(--line); stroke-width: 1.5; } .measured { fill: var(--line); }
.whisker { stroke: var(--line); stroke-width: 1; opacity: .7; }
.floor { stroke: var(--floor); stroke-dasharray: 6 4; } svg text.floor-label { fill: var(--floor); }
.default { fill: var(--default); } svg text.default-label { fill: var(--default); }
.conservative { fill: var(--conservative); } svg text.conservative-label { fill: var(--conservative); }
.segment { fill: var(--segment); } svg text.segment-label { fill: var(--segment); }
"""

Cell = str | ElementTree.Element


def page(report: Report) -> bytes:
    """The whole page, UTF-8. Also well-formed XML below its first line."""
    title = f"Gate of {report.digest[:12]}"
    root = ElementTree.Element("html", {"lang": "en"})
    head = _add(root, "head")
    _add(head, "meta", charset="utf-8")
    _add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", title)
    _add(head, "style", _STYLE)
    body = _add(root, "body")
    _add(body, "h1", title)
    _add(body, "p", f"Measured {report.created} by exact search over all {report.count:,} rows.").set("class", "soft")
    _add(body, "p", _lead(report)).set("class", "lead")
    _recall(body, report)
    _frontier(body, report)
    _candidates(body, report)
    _filters(body, report)
    _cost(body, report)
    _facts(body, report)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return f"<!DOCTYPE html>\n{text}\n".encode()


def _lead(report: Report) -> str:
    low = report.overall
    text = (
        f"Recall@{report.k} is {low.recall:.4f}; with {report.confidence:.1%} confidence it is at least "
        f"{low.recall_low:.4f} ({low.queries:,} queries)."
    )
    if report.truth is not None:
        text = f"{text} {OF_RECONSTRUCTIONS}"
    return text if report.floor is None else f"{text} {verdict(low, report.floor, report.held_out)}"


def verdict(measured: SegmentRecall, floor: float, held_out: HeldOut | None = None) -> str:
    """What there is to say about a floor: proven, not proven yet, or missed. held_out: whose queries these are."""
    if measured.recall_low >= floor:
        return f"The floor of {floor:g} is proven."
    few = held_out is not None and measured.queries < FEW_QUERIES
    if few and (measured.recall >= floor or not measured.queries):
        return (
            f"The floor of {floor:g} is not proven: with so few rows only {measured.queries} queries can be left out "
            "of an approximate index. Flat is exact and needs no proof; queries of your own count too."
        )
    if measured.recall < floor:
        return f"The floor of {floor:g} is missed."
    return f"The floor of {floor:g} is not proven: more queries would decide it."


def deleted_text(report: Report) -> str:
    """What became of deleted ids, in words."""
    answered = f"answered {report.tombstoned_found} times" if report.tombstoned_found else "none is answered"
    return f"{report.tombstones:,} listed, {report.tombstoned_in_index:,} rows of this index, {answered}"


def encoder_text(proof: EncoderProof) -> str:
    """How an encoder compares with the index, in words."""
    if not proof.rows:
        return "not compared: no row has a text that it takes whole"
    ratio = "" if proof.norm_ratio is None else f", ratio of lengths {proof.norm_ratio:.4f}"
    return (
        f"{proof.deviating:,} of {proof.rows:,} rows deviate (cosine below {ENCODER_COSINE}), at least "
        f"{proof.deviating_low:.1%} of all; median cosine {proof.cosine:.4f}{ratio}"
    )


def rerank_text(proof: RerankProof) -> str:
    """What the order of a cross-encoder gains, in words."""
    if not proof.queries:
        return "not measured: no labelled query in words"

    def said(one: Gain) -> str:
        return f"{one.without:.4f} without, {one.reranked:.4f} with it (between {one.low:+.4f} and {one.high:+.4f})"

    return (
        f"{proof.queries:,} labelled queries, 95% confidence: MRR {said(proof.mrr)}; nDCG@10 {said(proof.ndcg)}; "
        f"p95 {proof.p95_ms:.1f} ms a query"
    )


def _recall(body: ElementTree.Element, report: Report) -> None:
    _add(body, "h2", "Recall")
    rows = []
    live = report.live.shown if report.live is not None else ()
    for row in (report.overall, *report.segments, *live):
        ranks = ["–" if value is None else f"{value:.4f}" for value in (row.mrr, row.relevance_mrr)]
        rows.append([_of(row), f"{row.queries:,}", f"{row.recall:.4f}", f"{row.recall_low:.4f}", *ranks])
    for one in report.other_k:
        figures = [f"{one.recall:.4f}", f"{one.recall_low:.4f}", "–", "–"]
        rows.append([f"all queries, recall@{one.k}", f"{report.overall.queries:,}", *figures])
    names = ["queries of", "queries", f"recall@{report.k}", "at least", "MRR", "relevance MRR"]
    _table(body, names, rows, f"Queries: {report.queries}. Each asked with the parameters that will serve it.")
    if report.live is not None:
        _add(body, "p", _live(report.live)).set("class", "soft")
    if report.queries_by_hits:
        shown = [(hits, count) for hits, count in enumerate(report.queries_by_hits) if count]
        total = sum(report.queries_by_hits) or 1
        cells = [[f"{hits} of {report.k}", f"{count:,}", f"{count / total:.1%}"] for hits, count in reversed(shown)]
        _table(
            body, ["right answers", "queries", "share"], cells, "How many queries found how many of their neighbours."
        )


def _live(live: LiveReport) -> str:
    """What stable's users asked, and what became of it."""
    if not live.judged:
        return f"What stable's users ask was not judged: {live.note}."
    deeper = f", {live.deeper:,} asked for more answers than the gate looks at" if live.deeper else ""
    high = None if live.recall is None else live.recall.recall_high
    most = (
        ""
        if high is None
        else f" Each sender counts once; without the one answered worst they show {high:.4f} at most."
    )
    return (
        f"What stable's users asked in {live.hours} of the last 24 hours: {live.note}; "
        f"{live.largest_share:.1%} at most of one{deeper}.{most}"
    )


def _of(row: SegmentRecall) -> str:
    reported = " (few: reported only)" if row.judged is False else ""
    return (row.segment or "all queries") + reported


def _marks(report: Report) -> list[Mark]:
    marks = [Mark(point.point, str(number), f"segment {point.segment}", "segment")
             for number, point in enumerate(report.points, 1) if point.tuned]  # fmt: skip
    if report.conservative_point is not None:
        marks.append(Mark(report.conservative_point, "C", "conservative point", "conservative"))
    if report.default_point is not None:
        marks.append(Mark(report.default_point, "D", "default point", "default"))
    return marks


def _frontier(body: ElementTree.Element, report: Report) -> None:
    marks = _marks(report)
    if not report.frontier and not marks:
        return
    _add(body, "h2", "Operating points")
    body.append(frontier_picture(report.frontier, marks, report.floor))
    legend = (
        "D is the default point, C the conservative one, numbers are segments. Whiskers reach down to the lower bound."
    )
    _add(body, "p", legend).set("class", "soft")
    rows = [[mark.label, mark.title, *_point(mark.point.recall, mark.point.recall_low, mark.point.latency_us),
             _params(mark.point.params)] for mark in reversed(marks)]  # fmt: skip
    measured = [["", "measured", *_point(point.recall, point.recall_low, point.latency_us), _params(point.params)]
                for point in report.frontier]  # fmt: skip
    names = ["", "point", "recall", "at least", "µs", "parameters"]
    _table(body, names, [*rows, *measured], "Recall of the tuning queries, CPU time of one query on one thread.")
    if report.points:
        cells = [[str(number), row.segment, _segment(row)] for number, row in enumerate(report.points, 1)]
        _table(body, ["", "segment", "search parameters"], cells, "What each segment is served with.")


def _segment(row: SegmentPoint) -> str:
    if not row.tuned:
        return f"those of the default point: {row.reason}"
    return (
        f"{_params(row.point.params)}: tuned on {row.queries:,} queries for recall {row.target:g} and two half-widths"
    )


def _point(recall: float, low: float, latency: float) -> tuple[str, str, str]:
    return f"{recall:.4f}", f"{low:.4f}", f"{latency:,.0f}"


def _candidates(body: ElementTree.Element, report: Report) -> None:
    if not report.candidates:
        return
    _add(body, "h2", "What Auto weighed")
    rows = []
    for one in report.candidates:
        recall = "–" if one.recall is None else f"{one.recall:.4f}"
        latency = "–" if one.latency_us is None else f"{one.latency_us:,.0f}"
        rows.append([one.name, size_text(one.memory_bytes), recall, latency, _params(one.params), one.verdict])
    names = ["index", "memory", "recall", "µs", "parameters", "verdict"]
    _table(body, names, rows, "Recall on a sample; latency and memory as expected of all rows.")


def _filters(body: ElementTree.Element, report: Report) -> None:
    if not report.filtered:
        return
    _add(body, "h2", "Recall under filters")
    rows = [
        [f"{row.selectivity:.2%}", f"{row.rows:,}", f"{row.recall:.4f}", f"{row.recall_low:.4f}", row.search,
         f"{row.query_us:,.0f}"] for row in report.filtered
    ]  # fmt: skip
    names = ["rows that fit", "rows", f"recall@{report.k}", "at least", "search", "µs a query"]
    caption = "At the default point; random rows stand for those that a filter leaves. Exact: just these are scanned."
    _table(body, names, rows, caption)


def _cost(body: ElementTree.Element, report: Report) -> None:
    _add(body, "h2", "Cost")
    rows = [
        [f"{row.batch}", f"{row.p50_ms:.3f}", f"{row.p95_ms:.3f}", f"{row.query_us:,.0f}"] for row in report.latency
    ]
    _table(body, ["queries at once", "p50 ms", "p95 ms", "µs a query"], rows, "At the default point, one thread.")
    memory = [["files that are mapped or read, tables, kept filters", size_text(report.resident_bytes)]]
    if report.resident_measured_bytes is not None:
        memory.append(["growth of the gate's process after its queries", size_text(report.resident_measured_bytes)])
    _table(body, ["memory", "size"], memory, "")


def _facts(body: ElementTree.Element, report: Report) -> None:
    _add(body, "h2", "What was measured")
    canary = (
        f"{report.canary_recall:.4f} on {report.canary_queries:,} queries; a searcher must reach it before it is ready"
    )
    facts = [
        ("revision", report.digest),
        ("gate", report.gate_hash),
        ("index", f"{report.factory} ({report.index_type})"),
        ("data", f"{report.count:,} rows of {report.dimension} dimensions, {report.embedding.metric.value}"),
        ("embedding", " ".join(filter(None, (report.embedding.model, report.embedding.version))) or "not named"),
        ("canary recall", canary),
        ("ground truth", report.ground_truth + (", of reconstructions" if report.truth is not None else "")),
        *([("left out", _left_out(report.held_out))] if report.held_out else []),
        *([("encoder", encoder_text(report.encoder))] if report.encoder else []),
        *([("reranking", rerank_text(report.rerank))] if report.rerank else []),
        *([("deleted ids", deleted_text(report))] if report.tombstones else []),
        ("FAISS", f"{report.faiss_version}, {report.cpu_features}"),
        ("manifest", report.manifest_sha256),
    ]
    _table(body, ["", ""], [[name, _code(value)] for name, value in facts], "")


def _left_out(held_out: HeldOut) -> str:
    indexes = {0: "of no index: it is exact", 1: "of the index"}.get(
        held_out.indexes, f"of {held_out.indexes} indexes, each without others"
    )
    return (
        f"{held_out.left_out:,} rows {indexes}, {held_out.tuning:,} of them tuned it; "
        f"{held_out.duplicates:.1%} of the drawn rows equal another row"
    )


def _params(params: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "(none)"


def _code(text: str) -> ElementTree.Element:
    element = ElementTree.Element("code")
    element.text = text
    return element


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _table(body: ElementTree.Element, names: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str) -> None:
    """A table; columns whose cells are all figures are set right."""
    lines = [list(row) for row in rows]
    if not lines:
        return
    right = [all(_is_number(line[column]) for line in lines) for column in range(len(names))]
    table = _add(_add(body, "div", **{"class": "scroll"}), "table")
    if caption:
        _add(table, "caption", caption)
    if any(names):
        head = _add(_add(table, "thead"), "tr")
        for name, number in zip(names, right, strict=True):
            _add(head, "th", name, **({"class": "number"} if number else {}))
    inner = _add(table, "tbody")
    for line in lines:
        row = _add(inner, "tr")
        for cell, number in zip(line, right, strict=True):
            added = _add(row, "td", cell if isinstance(cell, str) else "", **({"class": "number"} if number else {}))
            if not isinstance(cell, str):
                added.append(cell)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, str) and (cell == "–" or cell.replace(",", "").replace(".", "").rstrip("%").isdigit())
