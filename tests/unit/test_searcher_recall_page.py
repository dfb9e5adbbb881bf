"""report.html: complete, escaped, without anything from elsewhere, and its picture drawn to scale."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from vectorindex_searcher.artifact.inspection import verdicts
from vectorindex_searcher.artifact.manifest import Candidate
from vectorindex_searcher.contract import Embedding, OperatingPoint, SegmentRecall
from vectorindex_searcher.proof.page import page, verdict
from vectorindex_searcher.proof.picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from vectorindex_searcher.proof.report import BatchLatency, FilteredRecall, Report, SegmentPoint

NASTY = "<script>alert('&')</script>"


def point(recall: float, latency: float, **params: int) -> OperatingPoint:
    return OperatingPoint(params=params, recall=recall, recall_low=recall - 0.004, latency_us=latency)


FRONTIER = (
    point(0.4, 20, nprobe=1),
    point(0.87, 40, nprobe=2),
    point(0.95, 80, nprobe=8),
    point(0.97, 160, nprobe=16),
    point(1, 900, nprobe=64),
)


def report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "gate_hash": "g1",
        "digest": "0123456789abcdef",
        "manifest_sha256": "ab" * 32,
        "k": 10,
        "confidence": 0.95,
        "queries": "s3://bucket/queries",
        "floor": 0.95,
        "overall": SegmentRecall(queries=1234, recall=0.9731, recall_low=0.9612, mrr=0.98),
        "segments": (SegmentRecall(segment="fr", queries=300, recall=0.96, recall_low=0.94),),
        "queries_by_hits": (1, 0, 0, 0, 0, 0, 0, 0, 20, 100, 1113),
        "params": {"nprobe": 16},
        "default_point": FRONTIER[3],
        "conservative_point": FRONTIER[4],
        "points": (
            SegmentPoint(segment="fr", tuned=True, target=0.96, queries=300, point=point(0.975, 250, nprobe=24)),
            SegmentPoint(segment="de", tuned=False, reason="12 queries", point=FRONTIER[3]),
        ),
        "p50_ms": 0.16,
        "p95_ms": 0.21,
        "batch_query_us": 60,
        "latency": (BatchLatency(batch=1, p50_ms=0.16, p95_ms=0.21, query_us=163),),
        "count": 81_250,
        "dimension": 384,
        "embedding": Embedding(model="mini"),
        "factory": "IVF64,Flat",
        "index_type": "IndexIVFFlat",
        "frontier": FRONTIER,
        "candidates": (Candidate(factory="HNSW32", memory_bytes=7 << 20, verdict="memory: too much"),),
        "filtered": (
            FilteredRecall(
                selectivity=0.01, rows=812, queries=200, recall=0.9876, recall_low=0.98, search="exact", query_us=77
            ),
        ),
        "resident_bytes": 3 << 20,
        "resident_measured_bytes": 5 << 20,
        "canary_queries": 300,
        "canary_recall": 0.97,
        "faiss_version": "1.15.1",
        "files": (),
    }
    return Report(**(fields | changes))


def parsed(one: Report) -> ElementTree.Element:
    return ElementTree.fromstring(page(one).split(b"\n", 1)[1])


def texts(root: ElementTree.Element) -> list[str]:
    return [text.strip() for element in root.iter() if element.tag != "style" for text in [element.text or ""]]


def test_every_figure_is_on_the_page() -> None:
    shown = texts(parsed(report()))
    for figure in ("0.9731", "0.9612", "1,234", "0.9800", "fr", "0.9400", "0.160", "0.210", "3.0 MiB", "5.0 MiB",
                   "nprobe=24", "1,113", "0123456789abcdef", "IVF64,Flat (IndexIVFFlat)",
                   "HNSW32", "7.0 MiB", "memory: too much", "0.9876", "812"):  # fmt: skip
        assert any(figure in text for text in shown), figure
    assert any("The floor of 0.95 is proven." in text for text in shown)
    assert any("those of the default point: 12 queries" in text for text in shown)


def test_recall_under_filters_has_a_table_of_its_own() -> None:
    root = parsed(report())
    assert "Recall under filters" in texts(root)
    (table,) = (table for table in root.iter("table") if "rows that fit" in texts(table))
    cells = [cell.text for cell in table.iter("td")]
    assert cells == ["1.00%", "812", "0.9876", "0.9800", "exact", "77"]


def test_nothing_comes_from_elsewhere_and_every_text_is_escaped() -> None:
    """Names of segments, columns, places and factories are a user's; a page that runs them would be somebody else's."""
    segments = (SegmentRecall(segment=NASTY, queries=300, recall=1, recall_low=0.9),)
    points = (SegmentPoint(segment=NASTY, tuned=True, target=0.9, queries=9, point=FRONTIER[0]),)
    one = report(segments=segments, points=points, factory=NASTY, queries=NASTY, digest=NASTY, cpu_features=NASTY)
    data = page(one).decode()
    assert data.startswith("<!DOCTYPE html>")
    root = parsed(one)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "caption", "thead"}
    allowed |= {"tbody", "tr", "th", "td", "code", "svg", "line", "polyline", "circle", "text"}
    assert {element.tag for element in root.iter()} <= allowed
    assert sum(NASTY in text for text in texts(root)) >= 6
    assert not re.search(r"https?:|url\(|@import|\bsrc=|\bhref=|\bon\w+=|<script", data)
    # What HTML reads differently from XML: a tag that closes itself stays open.
    assert "/>" not in data


def test_the_picture_is_drawn_to_scale() -> None:
    root = parsed(report())
    dots = {dot.get("class"): dot for dot in root.iter("circle")}
    measured = [dot for dot in root.iter("circle") if dot.get("class") == "measured"]
    assert (len(measured), set(dots)) == (4, {"measured", "default", "conservative", "segment"})
    places = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in measured]
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places)
    # The fifth point, far below all that matters, is in the table only.
    assert "0.4000" in texts(root)
    # Recall is linear: equal steps are equal heights, 1 is the upper edge. Latency doubles by equal widths.
    (_, first), (x80, second), (x160, third), (_, top) = places
    assert top == pytest.approx(TOP, abs=0.1)
    assert (first - second) / (second - third) == pytest.approx(0.08 / 0.02, rel=0.02)
    assert x160 - x80 == pytest.approx(x80 - places[0][0], abs=0.2)
    floor = next(line for line in root.iter("line") if line.get("class") == "floor")
    assert float(floor.get("y1", 0)) == pytest.approx(second, abs=0.1)  # .95, like the second point
    assert "segment fr: recall 0.9750" in next(dot for dot in dots["segment"].iter("title")).text  # type: ignore[operator]
    assert [text.text for text in root.iter("text") if "label " in (text.get("class") or "")] == ["1", "C", "D"]


def test_a_page_of_little() -> None:
    """A report of an older version, an index of one point, equal latencies, recall of 0: no division by zero."""
    old = report(floor=None, default_point=None, conservative_point=None, points=(), frontier=(), latency=(),
                 queries_by_hits=(), resident_measured_bytes=None, filtered=())  # fmt: skip
    assert not list(parsed(old).iter("svg"))
    assert "Recall under filters" not in texts(parsed(old))
    for one in (point(1, 10), point(0.004, 0), point(1, 0)):
        root = parsed(report(frontier=(one,), default_point=one, conservative_point=None, points=(), floor=1.0))
        assert not re.search(r"nan|inf", " ".join(str(e.attrib) for e in root.iter("circle")))
    assert page(report()) == page(report(files=()))


def test_deleted_ids_are_told_and_decide() -> None:
    assert not any("listed" in text for text in texts(parsed(report())))
    good = report(tombstones=1200, tombstoned_in_index=7)
    assert "1,200 listed, 7 rows of this index, none is answered" in texts(parsed(good))
    assert verdicts(good, 0.9, {}) == (verdicts(report(), 0.9, {})[0], True)
    lines, proven = verdicts(good.model_copy(update={"tombstoned_found": 2}), 0.9, {})
    assert (lines[-1][-18:], proven) == (", answered 2 times", False)


def test_verdicts() -> None:
    measured = SegmentRecall(queries=100, recall=0.96, recall_low=0.94)
    assert [verdict(measured, floor).split(" is ")[1] for floor in (0.94, 0.95, 0.97)] == [
        "proven.", "not proven: more queries would decide it.", "missed."
    ]  # fmt: skip
