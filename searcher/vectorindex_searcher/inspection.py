"""`inspect`: manifests and reports as a person reads them. Reads only JSON; opens no index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from .artifact import Candidate, Manifest
from .contract import OperatingPoint, SegmentRecall
from .errors import BadSpec
from .index.sizes import size_text
from .recall.report import Report
from .store import Role, open_store, parse_location


def inspect(where: str, endpoint: str = "", region: str = "") -> Iterator[str]:
    """Lines about one manifest.json or report.json, or about all below a place. Raises BadSpec when there is none."""
    if not where.startswith("s3://") and not Path(where).exists():
        raise BadSpec("NotFound", f"{where} does not exist")
    store = open_store(parse_location(where, endpoint=endpoint, region=region), Role.ARTIFACTS)
    keys = sorted(
        (item.key for item in store.list(store.prefix) if item.key.endswith(("manifest.json", "report.json"))),
    )
    if not keys:
        raise BadSpec("NotFound", f"{where} holds no manifest.json and no report.json")
    for key in keys:
        data = store.read(key)
        yield store.describe(key)
        try:
            yield from _manifest(data) if key.endswith("manifest.json") else _report(data)
        except ValidationError as error:
            yield f"  not readable by this version: {error.error_count()} errors"
        yield ""


def _manifest(data: bytes) -> Iterator[str]:
    manifest = Manifest.model_validate_json(data)
    owner = f"{manifest.identity.namespace}/{manifest.identity.name}"
    yield f"  index      {owner}, revision {manifest.digest}, built {manifest.created} on {manifest.device.value}"
    if manifest.device_reason:
        yield f"             {manifest.device_reason}"
    shape = f"{manifest.count:,} x {manifest.dimension} {manifest.vector_dtype}"
    yield f"  data       {shape}, {manifest.embedding.metric.value}, fingerprint {manifest.fingerprint[:16]}"
    yield f"  factory    {manifest.factory} ({manifest.index_type}), FAISS {manifest.faiss_version}"
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
    width = max(len(one.factory) for one in candidates)
    yield f"  Auto       {'index':<{width}}  {'memory':>10}  {'recall@10':>9}  {'us a query':>10}  verdict"
    for one in candidates:
        recall = "-" if one.recall is None else f"{one.recall:.4f}"
        latency = "-" if one.latency_us is None else f"{one.latency_us:.0f}"
        figures = f"{size_text(one.memory_bytes):>10}  {recall:>9}  {latency:>10}"
        yield f"             {one.factory:<{width}}  {figures}  {one.verdict}"


def _report(data: bytes) -> Iterator[str]:
    report = Report.model_validate_json(data)
    yield f"  gate       {report.gate_hash} of revision {report.digest}, measured {report.created}"
    yield f"  queries    {report.queries}; params {_params(report.params)}"
    for segment in (report.overall, *report.segments):
        yield f"  recall     {_recall(segment, report.k, report.confidence)}"
    for row in report.filtered:
        text = f"recall@{report.k} {row.recall:.4f}, at least {row.recall_low:.4f}; {row.search}, {row.query_us:.0f} us"
        yield f"  filters    {row.selectivity:.4%} of the rows ({row.rows:,}): {text}"
    latency = f"p50 {report.p50_ms:.3f} ms, p95 {report.p95_ms:.3f} ms; {report.batch_query_us:.0f} us in a batch"
    yield f"  latency    {latency}"
    yield f"  canary     {report.canary_recall:.4f} on {report.canary_queries} queries"


def _recall(segment: SegmentRecall, k: int, confidence: float) -> str:
    name = segment.segment or "all"
    if not segment.queries:
        return f"{name}: no queries"
    text = f"{name}: recall@{k} {segment.recall:.4f}, at least {segment.recall_low:.4f} ({confidence:.0%} sure)"
    ranks = [f"MRR {segment.mrr:.4f}"] if segment.mrr is not None else []
    ranks += [f"relevance MRR {segment.relevance_mrr:.4f}"] if segment.relevance_mrr is not None else []
    return ", ".join([text, *ranks, f"{segment.queries} queries"])


def _point(point: OperatingPoint) -> str:
    low, params = f"(at least {point.recall_low:.4f})", _params(point.params)
    return f"recall@10 {point.recall:.4f} {low} at {point.latency_us:.0f} us  {params}"


def _params(params: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "(none)"
