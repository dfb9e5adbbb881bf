"""`inspect`: manifests and reports as a person reads them. Reads only JSON; opens no index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from ..contract import SEGMENT_QUERIES, WITH_A_FILTER, OperatingPoint, SegmentRecall
from ..errors import BadSpec
from ..index.sizes import size_text
from ..proof.merged_report import MergedReport
from ..proof.page import OF_RECONSTRUCTIONS, deleted_text, encoder_text, page, rerank_text, verdict
from ..proof.report import Report, SegmentPoint
from ..storage.store import Role, open_store, parse_location
from .document import DOCUMENT_LIMIT_BYTES
from .manifest import Candidate, Manifest, is_sharded
from .sharded import ShardedManifest

_REMEDY = "Name the folder that `build` got as --out, or one manifest.json or report.json in it."


def inspect(where: str, endpoint: str = "", region: str = "") -> Iterator[str]:
    """Lines about one manifest.json or report.json, or about all below a place. Raises BadSpec when there is none."""
    if "://" not in where and not Path(where).exists():
        raise BadSpec("NotFound", f"{where} does not exist", remedy=_REMEDY)
    store = open_store(parse_location(where, endpoint=endpoint, region=region), Role.ARTIFACTS)
    keys = sorted(
        (item.key for item in store.list(store.prefix) if item.key.endswith(("manifest.json", "report.json"))),
    )
    if not keys:
        raise BadSpec("NotFound", f"{where} holds no manifest.json and no report.json", remedy=_REMEDY)
    for key in keys:
        data = store.read(key, length=DOCUMENT_LIMIT_BYTES + 1)
        yield store.describe(key)
        try:
            yield from _manifest(data) if key.endswith("manifest.json") else _report(data)
        except ValidationError as error:
            yield f"  not readable by this version: {_first(error)}"
        yield ""


def _first(error: ValidationError) -> str:
    """The first of the errors, and how many more there are."""
    first, more = error.errors(include_url=False)[0], error.error_count() - 1
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" + (f", and {more} more" if more else "")


def _report(data: bytes) -> Iterator[str]:
    """Of an artifact, or of the merged answers of a sharded one."""
    if b'"kind": "Merged"' in data[:200]:
        return MergedReport.model_validate_json(data).lines()
    return report_lines(Report.model_validate_json(data))


def _sharded(data: bytes) -> Iterator[str]:
    whole = ShardedManifest.model_validate_json(data)
    owner = f"{whole.identity.namespace}/{whole.identity.name}"
    yield f"  index      {owner}, revision {whole.digest}, {len(whole.shards)} shards, published {whole.created}"
    shape = f"{whole.count:,} x {whole.dimension} {whole.vector_dtype}"
    yield f"  data       {shape}, {whole.embedding.metric.value}, fingerprint {whole.fingerprint[:16]}"
    yield f"  factory    {whole.factory}"
    for number, part in enumerate(whole.shards):
        sizes = f"{part.count:>12,} rows, {size_text(part.resident_bytes):>10} of memory"
        yield f"  shard      {number:>2}{sizes}  {part.manifest_sha256[:16]}"


def _manifest(data: bytes) -> Iterator[str]:
    if is_sharded(data):
        yield from _sharded(data)
        return
    manifest = Manifest.model_validate_json(data)
    owner = f"{manifest.identity.namespace}/{manifest.identity.name}"
    yield f"  index      {owner}, revision {manifest.digest}, built {manifest.created} on {manifest.device.value}"
    if manifest.shard is not None:
        yield f"             shard {manifest.shard} by the plan {(manifest.plan_sha256 or '')[:16]}"
    if manifest.device_reason:
        yield f"             {manifest.device_reason}"
    shape = f"{manifest.count:,} x {manifest.dimension} {manifest.vector_dtype}"
    yield f"  data       {shape}, {manifest.embedding.metric.value}, fingerprint {manifest.fingerprint[:16]}"
    graph = f", efConstruction {manifest.ef_construction}" if manifest.ef_construction else ""
    yield f"  factory    {manifest.factory} ({manifest.index_type}{graph}), FAISS {manifest.faiss_version}"
    yield f"  build      {manifest.duration_seconds:.1f} s, peak memory {size_text(manifest.peak_memory_bytes)}"
    yield f"  serving    {size_text(manifest.resident_bytes)} of memory"
    yield f"  default    {_point(manifest.default_point)}"
    if manifest.conservative_point:
        yield f"  careful    {_point(manifest.conservative_point)}"
    yield from (f"  measured   {_point(point)}" for point in manifest.frontier)
    yield from _candidates(manifest.candidates)
    yield from (
        f"  file       {file.name:<16}{size_text(file.size):>10}  {file.sha256[:16]}" for file in manifest.files
    )


def _candidates(candidates: tuple[Candidate, ...]) -> Iterator[str]:
    """A table of what Auto weighed."""
    if not candidates:
        return
    width = max(len(one.name) for one in candidates)
    yield f"  Auto       {'index':<{width}}  {'memory':>10}  {'recall@10':>9}  {'us a query':>10}  verdict"
    for one in candidates:
        recall = "-" if one.recall is None else f"{one.recall:.4f}"
        latency = "-" if one.latency_us is None else f"{one.latency_us:.0f}"
        figures = f"{size_text(one.memory_bytes):>10}  {recall:>9}  {latency:>10}"
        yield f"             {one.name:<{width}}  {figures}  {one.verdict}"


def report_lines(report: Report) -> Iterator[str]:
    """A report as a person reads it."""
    yield f"  gate       {report.gate_hash} of revision {report.digest}, measured {report.created}"
    yield f"  queries    {report.queries}; params {_params(report.params)}"
    live = report.live.shown if report.live is not None else ()
    if report.truth is not None:
        yield f"  truth      {OF_RECONSTRUCTIONS}"
    for segment in (report.overall, *report.segments, *live):
        yield f"  recall     {_recall(segment, report.k, report.confidence)}"
    if report.live is not None:
        yield f"  live       {report.live.note}"
    for row in report.filtered:
        text = f"recall@{report.k} {row.recall:.4f}, at least {row.recall_low:.4f}; {row.search}, {row.query_us:.0f} us"
        yield f"  filters    {100 * row.selectivity:g} % of the rows ({row.rows:,}): {text}"
    for one in report.points:
        yield f"  segment    {one.segment}: {_segment_point(one)}"
    latency = f"p50 {report.p50_ms:.3f} ms, p95 {report.p95_ms:.3f} ms; {report.batch_query_us:.0f} us in a batch"
    yield f"  latency    {latency}"
    measured = report.resident_measured_bytes
    grown = f", measured {size_text(measured)}" if measured is not None else ""
    yield f"  memory     {size_text(report.resident_bytes)}{grown}"
    yield f"  canary     {report.canary_recall:.4f} on {report.canary_queries} queries"
    if report.encoder is not None:
        yield f"  encoder    {encoder_text(report.encoder)}"
    if report.rerank is not None:
        yield f"  reranking  {rerank_text(report.rerank)}"
    if report.tombstones:
        yield f"  deleted    {deleted_text(report)}"


def report_page(where: str, endpoint: str = "", region: str = "") -> bytes:
    """report.html of the one report at or below a place, made anew. Raises BadSpec when there is none, or several."""
    store = open_store(parse_location(where, endpoint=endpoint, region=region), Role.ARTIFACTS)
    keys = sorted(item.key for item in store.list(store.prefix) if item.key.endswith("report.json"))
    if len(keys) != 1:
        found = "".join(f" {store.describe(key)}" for key in keys[:20])
        raise BadSpec("AmbiguousReport", f"{where} holds {len(keys)} reports", remedy=f"Name one report.json:{found}")
    try:
        return page(Report.model_validate_json(store.read(keys[0], length=DOCUMENT_LIMIT_BYTES + 1)))
    except ValidationError as error:
        message = f"{store.describe(keys[0])} is not readable by this version: {_first(error)}"
        raise BadSpec("BadReport", message) from None


def verdicts(report: Report, floor: float | None, floors: Mapping[str, float]) -> tuple[list[str], bool]:
    """What the report says about floors of all queries and of segments, a line each; and whether all are proven, no
    deleted id was answered and no cross-encoder makes answers worse."""
    measured = {row.segment: row for row in report.segments}
    lines, proven = [], True
    judged = [(name, floor) for name in ("", *_filtered(report)) if floor is not None]
    for name, limit in [*judged, *floors.items()]:
        row = report.overall if not name else measured.get(name)
        where = "all queries" if not name else f"queries {name}" if name == WITH_A_FILTER else f"segment {name}"
        if row is None:
            lines.append(f"{where}: no queries, so the floor of {limit:g} is not proven.")
        else:
            numbers = f"recall@{report.k} {row.recall:.4f}, at least {row.recall_low:.4f} on {row.queries} queries"
            lines.append(f"{where}: {verdict(row, limit, report.held_out)} {numbers}")
        proven &= row is not None and row.recall_low >= limit
    if report.tombstoned_found:
        lines.append(f"deleted ids: {deleted_text(report)}")
    harmed = report.rerank is not None and report.rerank.harms
    if report.rerank is not None and harmed:
        lines.append(f"reranking: answers are worse in its order. {rerank_text(report.rerank)}")
    return lines, proven and not report.tombstoned_found and not harmed


def _filtered(report: Report) -> list[str]:
    """The class of queries with a filter, where it is judged."""
    rows = (row for row in report.segments if row.segment == WITH_A_FILTER and row.judged is not False)
    return [row.segment for row in rows if row.queries >= SEGMENT_QUERIES]


def _segment_point(row: SegmentPoint) -> str:
    return _point(row.point, "recall") if row.tuned else f"default point, {row.reason}"


def _recall(segment: SegmentRecall, k: int, confidence: float) -> str:
    name = (segment.segment or "all") + (" (few: reported only)" if segment.judged is False else "")
    if not segment.queries:
        return f"{name}: no queries"
    text = f"{name}: recall@{k} {segment.recall:.4f}, at least {segment.recall_low:.4f} ({confidence:.0%} sure)"
    ranks = [f"MRR {segment.mrr:.4f}"] if segment.mrr is not None else []
    ranks += [f"relevance MRR {segment.relevance_mrr:.4f}"] if segment.relevance_mrr is not None else []
    return ", ".join([text, *ranks, f"{segment.queries} queries"])


def _point(point: OperatingPoint, name: str = "recall@10") -> str:
    low, params = f"(at least {point.recall_low:.4f})", _params(point.params)
    return f"{name} {point.recall:.4f} {low} at {point.latency_us:.0f} us  {params}"


def _params(params: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "(none)"
