"""What `validate` leaves beside the artifact: report.json, and the files that it names by SHA-256."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..artifact.document import bad_document, parse_document, read_document
from ..artifact.layout import CANARY_FILE, ENCODER_FILE, PAGE_FILE, POINTS_FILE, Layout
from ..artifact.manifest import Candidate, ManifestFile, describe_bytes, encode
from ..artifact.publish import fetch_files
from ..contract import (
    RESULT_LIMIT_BYTES,
    Embedding,
    EncoderProof,
    Model,
    OperatingPoint,
    RerankProof,
    SegmentRecall,
    ValidateResult,
)
from ..errors import BadData, RetryableError
from ..storage.store import Store
from .canary import read_canary
from .live.report import LiveReport

BAD = "BadReport"


class SegmentPoint(Model):
    """What one declared segment is served with."""

    segment: str
    tuned: bool
    """False: this is the default point, for the reason given."""
    reason: str = ""
    target: float | None = None
    """Recall@k to reach with two half-widths to spare."""
    queries: int = 0
    """Of the tuning half."""
    point: OperatingPoint
    """With what was measured on the tuning half; the default point with what `build` measured."""


class Points(Model):
    """points.json of a report. Searchers apply it to queries that name a segment."""

    format_version: Literal[1] = 1
    digest: str
    gate_hash: str
    manifest_sha256: str = ""
    k: int
    default: OperatingPoint
    segments: tuple[SegmentPoint, ...] = ()

    @property
    def params(self) -> dict[str, dict[str, int]]:
        """Parameters by segment, of the segments that are not served with the default ones."""
        return {row.segment: dict(row.point.params) for row in self.segments if row.point.params != self.default.params}


class BatchLatency(Model):
    """Wall time of one call with so many queries, one thread."""

    batch: int
    p50_ms: float
    p95_ms: float
    query_us: float
    """Median time of the call, shared by its queries, microseconds."""


class FilteredRecall(Model):
    """What was measured when only some rows may be answered, drawn at random: how well filters are served."""

    selectivity: float
    """Share of the rows that was asked for; `rows` is how many that were."""
    rows: int
    queries: int
    recall: float
    recall_low: float
    search: Literal["plain", "approximate", "exact"]
    """How the searcher's own choice searched them on this machine."""
    query_us: float
    """Mean wall time of one query, one thread, microseconds."""


class RecallAtK(Model):
    """Recall of another number of answers, at the same point."""

    k: int
    recall: float
    recall_low: float


class HeldOut(Model):
    """How the figures came about where the queries are rows of the source."""

    left_out: int
    """Rows that were in no index while it was measured: tuning, gate, and their near-duplicates."""
    tuning: int
    """Queries that the default point was tuned with."""
    indexes: int
    """How many indexes were measured, each without other rows; 0: an exact index needs none left out."""
    duplicates: float
    """Share of the drawn rows that equal another row."""


class Report(Model):
    """report.json. Written last, only if there is none; its SHA-256 goes to the operator and on to the searchers."""

    format_version: Literal[1] = 1
    gate_hash: str
    digest: str
    manifest_sha256: str
    k: int
    confidence: float
    queries: str
    """Where the queries came from: held-out rows, or the location of user-given ones."""
    held_out: HeldOut | None = None
    """None: queries of a user, or rows of an artifact that an older release built, in which they were measured."""
    floor: float | None = None
    """The floor when it was measured: for the page. The verdict is made by who asks, with the floor of then."""
    overall: SegmentRecall
    segments: tuple[SegmentRecall, ...] = ()
    truth: Literal["Reconstructions"] | None = None
    """What recall was measured against, where that is not the vectors of the source: what the index gives back."""
    ground_truth: Literal["computed", "reused"] = "computed"
    """Whether the exact neighbours were scanned for, or kept from an earlier gate on the same vectors and queries."""
    other_k: tuple[RecallAtK, ...] = ()
    """What the build asked for besides k: a search for more answers than the gate judges has a figure of its own."""
    queries_by_hits: tuple[int, ...] = ()
    """Queries with 0, 1, ... k right answers."""
    params: dict[str, int]
    """Of the default point."""
    default_point: OperatingPoint | None = None
    conservative_point: OperatingPoint | None = None
    points: tuple[SegmentPoint, ...] = ()
    """What each declared segment is served with, as in points.json."""
    p50_ms: float
    p95_ms: float
    batch_query_us: float
    """Time per query in a batch of 64 on one thread, microseconds."""
    cost_us: float | None = None
    """CPU time of a query on one thread, microseconds: of all classes by their shares, each at its own point."""
    latency: tuple[BatchLatency, ...] = ()
    """At the default point; p50Ms and p95Ms repeat those of one query."""
    filtered: tuple[FilteredRecall, ...] = ()
    """Recall@k at the default point when a filter leaves so many rows."""
    live: LiveReport | None = None
    """What stable's users asked; None: spec.gate.queries.live is not there."""
    encoder: EncoderProof | None = None
    """How the encoder of queries in words compares with the index; None: it has none."""
    rerank: RerankProof | None = None
    """What the order of a cross-encoder gains; None: there is none, or no labelled query in words to tell by."""
    count: int
    dimension: int
    embedding: Embedding
    factory: str
    index_type: str
    frontier: tuple[OperatingPoint, ...] = ()
    """Points that no other one beats in both recall and latency, as `build` measured them."""
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=64)] = ()
    """What Auto weighed, the chosen one first, as in the manifest."""
    resident_bytes: int
    """Memory a searcher needs for this artifact: the size of everything it maps or reads."""
    resident_measured_bytes: int | None = None
    """By how much the gate's process grew when it had opened the artifact and answered queries."""
    canary_queries: int
    canary_recall: float
    tombstones: int = 0
    """Deleted ids that were listed when this was measured."""
    tombstoned_in_index: int = 0
    """Rows of this index that have one of them; searchers hide these."""
    tombstoned_found: int = 0
    """Answers with one of them, when up to 1,000 of their vectors were searched for: must be 0."""
    faiss_version: str
    cpu_features: str = ""
    created: str = ""
    files: tuple[ManifestFile, ...]

    def result(self, sha256: str, column_types: str | None = None) -> ValidateResult:
        """What `validate` answers: figures of millionths, and few enough of them for a termination message."""
        whole = tuple(_brief(row, ranks=True) for row in self.segments)
        result = self._result(sha256, whole, column_types)
        if len(result.model_dump_json(by_alias=True, exclude_none=True)) > RESULT_LIMIT_BYTES:
            # Ranks of single segments are judged by nobody; the report keeps them.
            result = self._result(sha256, tuple(_brief(row, ranks=False) for row in self.segments), column_types)
        return result

    def _result(self, sha256: str, segments: tuple[SegmentRecall, ...], column_types: str | None) -> ValidateResult:
        return ValidateResult(
            gate_hash=self.gate_hash,
            k=self.k,
            confidence=self.confidence,
            overall=_brief(self.overall, ranks=True),
            segments=segments,
            count=self.count,
            p50_ms=round(self.p50_ms, 4),
            p95_ms=round(self.p95_ms, 4),
            cost_us=None if self.cost_us is None else round(self.cost_us, 2),
            resident_bytes=self.resident_bytes,
            canary_queries=self.canary_queries,
            canary_recall=self.canary_recall,
            tombstoned_found=self.tombstoned_found,
            report_sha256=sha256,
            live=tuple(_brief(row, ranks=False) for row in self.live.rows) or None if self.live else None,
            live_note=self.live.note[:300] if self.live else None,
            column_types=column_types,
            filters=bool(self.filtered) if self.overall.queries else None,
            encoder=self.encoder,
            truth=self.truth,
            rerank=self.rerank,
        )


def _brief(row: SegmentRecall, *, ranks: bool) -> SegmentRecall:
    """The row with six digits, rounded down so that no floor is reached by rounding, and none missed by it (the upper
    end); with or without its ranks."""

    def short(value: float | None) -> float | None:
        # 0.96 is 0.95999... in binary: what is a millionth but for the last bits stays one.
        return None if value is None else math.floor(value * 1e6 + 1e-6) / 1e6

    figures = {name: short(getattr(row, name)) for name in ("recall", "recall_low", "mrr", "relevance_mrr")}
    if row.recall_high is not None:
        figures["recall_high"] = math.ceil(row.recall_high * 1e6 - 1e-6) / 1e6
    if not ranks:
        figures |= {"mrr": None, "relevance_mrr": None}
    return row.model_copy(update=figures)


def load_report(
    store: Store, layout: Layout, digest: str, gate_hash: str, expected_sha256: str = ""
) -> tuple[Report, str]:
    """The report of a gate and its SHA-256.

    Raises Retry/ReportNotFound when there is none, ChecksumMismatch when it is another one, BadData when unreadable.
    """
    key = layout.report(digest, gate_hash)
    found = read_document(store, key, expected_sha256)
    if found is None:
        raise RetryableError("ReportNotFound", f"{store.describe(key)} does not exist", object=key)
    report = parse_document(Report, found[0], store.describe(key), BAD)
    _must_be_of(report, digest, gate_hash, store.describe(key))
    return report, found[1]


def report_of(store: Store, layout: Layout, wanted: Report) -> bool:
    """Whether the report that is there is of the manifest of `wanted`."""
    try:
        return load_report(store, layout, wanted.digest, wanted.gate_hash)[0].manifest_sha256 == wanted.manifest_sha256
    except (BadData, RetryableError):
        return False


def fetch_canary(store: Store, layout: Layout, report: Report, folder: Path) -> Any:
    """The canary table (pyarrow.Table) of a report, fetched into `folder` and verified. Raises as fetch_files."""
    pairs = _keyed(layout, report, CANARY_FILE)
    if not pairs:
        raise BadData(BAD, f"the report of gate {report.gate_hash} names no {CANARY_FILE}")
    return read_canary(fetch_files(store, pairs, folder) / CANARY_FILE)


def fetch_points(store: Store, layout: Layout, report: Report, folder: Path) -> Points | None:
    """The operating points of a report, fetched into `folder` and verified; None for a report without any.

    Raises as fetch_files, and BadData/BadReport when they are unreadable or of another gate.
    """
    pairs = _keyed(layout, report, POINTS_FILE)
    if not pairs:
        return None
    data = (fetch_files(store, pairs, folder) / POINTS_FILE).read_bytes()
    return read_points(data, report.digest, report.gate_hash)


def fetch_encoder(store: Store, layout: Layout, report: Report, folder: Path) -> Path | None:
    """encoder.arrow of a report, fetched into `folder` and verified; None for a report without one.

    Raises as fetch_files.
    """
    pairs = _keyed(layout, report, ENCODER_FILE)
    return fetch_files(store, pairs, folder) / ENCODER_FILE if pairs else None


def _keyed(layout: Layout, report: Report, name: str) -> list[tuple[str, ManifestFile]]:
    """Key and description of the report's file of that name; none where it names none."""
    return [(layout.report(report.digest, report.gate_hash, one.name), one) for one in report.files if one.name == name]


def read_points(data: bytes, digest: str, gate_hash: str) -> Points:
    """Parse points.json. Raises BadData/BadReport when it is unreadable or of another gate."""
    points = parse_document(Points, data, POINTS_FILE, BAD)
    _must_be_of(points, digest, gate_hash, POINTS_FILE)
    return points


def _must_be_of(found: Report | Points, digest: str, gate_hash: str, where: str) -> None:
    if (found.digest, found.gate_hash) != (digest, gate_hash):
        raise bad_document(BAD, where, f"is of {found.digest}/{found.gate_hash}, expected {digest}/{gate_hash}")


def publish_report(store: Store, layout: Layout, report: Report, page: Callable[[Report], bytes]) -> tuple[Report, str]:
    """Store report.html and report.json, unless this manifest has a report; the one that is there now and its SHA-256.

    The report of another manifest, which is gone, gives way. `page` makes the page of a report; it may not look at
    `files`, where the page itself is entered.
    """
    if report_of(store, layout, report):  # its page would be laid over
        return load_report(store, layout, report.digest, report.gate_hash)
    ours = _with_page(store, layout, report, page)
    key = layout.report(report.digest, report.gate_hash)
    if not store.put(key, encode(ours), exclusive=True) and not report_of(store, layout, ours):
        store.put(key, encode(ours))
    published, sha256 = load_report(store, layout, report.digest, report.gate_hash)
    if published != ours:  # another try was faster; its report has its own page, which ours lies over
        _with_page(store, layout, published, page)
    return published, sha256


def _with_page(store: Store, layout: Layout, report: Report, page: Callable[[Report], bytes]) -> Report:
    """Store the report's page; the report with the page among its files."""
    data = page(report)
    store.put(layout.report(report.digest, report.gate_hash, PAGE_FILE), data)
    others = tuple(file for file in report.files if file.name != PAGE_FILE)
    return report.model_copy(update={"files": (*others, describe_bytes(PAGE_FILE, data))})
