"""report.json of a sharded artifact: the recall of the merged answers, and what each shard does by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ..artifact.document import parse_document, read_document
from ..artifact.layout import Layout
from ..artifact.manifest import ManifestFile, encode
from ..contract import MAX_SHARDS, Embedding, Model, SegmentRecall, ShardNumber, ValidateResult
from ..storage.store import Store
from .report import BAD


class ShardFigures(Model):
    """One shard, asked the same queries as all."""

    shard: ShardNumber
    manifest_sha256: str
    count: int
    recall: float
    """Of its own nearest rows, which need not be among those of all shards."""
    canary_recall: float = 0.0
    """The same of the canary queries, as it is served."""
    params: dict[str, int]
    """Of its default point, which it is served with."""
    p50_ms: float
    p95_ms: float
    latency_us: float
    """CPU time of a query, as `build` measured it, microseconds."""
    resident_bytes: int


class MergedReport(Model):
    """report.json. Written last, only if there is none."""

    format_version: Literal[1] = 1
    kind: Literal["Merged"] = "Merged"
    gate_hash: str
    digest: str
    manifest_sha256: str
    """Of the whole."""
    k: int
    confidence: float
    queries: str
    """Where the queries came from: held-out rows, or the location of user-given ones."""
    floor: float | None = None
    overall: SegmentRecall
    """Of the merged answers against the nearest rows of all shards."""
    queries_by_hits: tuple[int, ...] = ()
    """Queries with 0, 1, ... k right answers."""
    shards: Annotated[tuple[ShardFigures, ...], Field(min_length=2, max_length=MAX_SHARDS)]
    count: int
    dimension: int
    embedding: Embedding
    factory: str
    canary_queries: int = 0
    canary_recall: float = 0.0
    """Of the merged answers to them, as the shards are served."""
    tombstones: int = 0
    """Deleted ids that were listed when this was measured."""
    tombstoned_found: int = 0
    """Answers with one of them: must be 0."""
    faiss_version: str
    cpu_features: str = ""
    created: str = ""
    files: tuple[ManifestFile, ...] = ()
    """The canary of each shard; none where an earlier release measured."""

    def result(self, sha256: str, column_types: str | None = None) -> ValidateResult:
        """What `validate` answers. A query waits for the slowest shard, and costs what all of them cost."""
        return ValidateResult(
            gate_hash=self.gate_hash,
            k=self.k,
            confidence=self.confidence,
            overall=self.overall,
            count=self.count,
            p50_ms=round(max(one.p50_ms for one in self.shards), 4),
            p95_ms=round(max(one.p95_ms for one in self.shards), 4),
            cost_us=round(sum(one.latency_us for one in self.shards), 2),
            resident_bytes=max(one.resident_bytes for one in self.shards),
            canary_queries=self.canary_queries,
            canary_recall=self.canary_recall,
            tombstoned_found=self.tombstoned_found,
            report_sha256=sha256,
            column_types=column_types,
            shard_recalls=tuple(round(one.recall, 6) for one in self.shards),
        )

    def lines(self) -> Iterator[str]:
        """As a person reads it."""
        row = self.overall
        where = f"revision {self.digest}, {len(self.shards)} shards"
        yield f"  gate       {self.gate_hash} of {where}, measured {self.created}"
        yield f"  queries    {self.queries}"
        sure = f"at least {row.recall_low:.4f} ({self.confidence:.0%} sure), {row.queries} queries"
        yield f"  recall     merged: recall@{self.k} {row.recall:.4f}, {sure}"
        for one in self.shards:
            params = " ".join(f"{name}={value}" for name, value in one.params.items()) or "(none)"
            figures = f"recall@{self.k} of its own {one.recall:.4f}, p50 {one.p50_ms:.3f} ms, p95 {one.p95_ms:.3f} ms"
            yield f"  shard      {one.shard}: {one.count:,} rows, {figures}  {params}"

    def verdicts(self, floor: float | None) -> tuple[list[str], bool]:
        """What it says about a floor, a line; and whether it is proven and no deleted id was answered."""
        row, lines, proven = self.overall, [], True
        if floor is not None:
            proven = row.recall_low >= floor
            figures = f"recall@{self.k} {row.recall:.4f}, at least {row.recall_low:.4f} on {row.queries} queries"
            lines.append(f"merged answers: {'proven' if proven else 'not proven'} to reach {floor:g}: {figures}")
        if self.tombstoned_found:
            lines.append(f"deleted ids: {self.tombstoned_found} were answered")
        return lines, proven and not self.tombstoned_found


def find_merged(
    store: Store, layout: Layout, digest: str, gate_hash: str, expected_sha256: str = ""
) -> tuple[MergedReport, str] | None:
    """The report of a gate and its SHA-256; None where there is none. Raises BadData/BadReport, and ChecksumMismatch
    where another one is expected."""
    key = layout.report(digest, gate_hash)
    found = read_document(store, key, expected_sha256)
    return None if found is None else (parse_document(MergedReport, found[0], store.describe(key), BAD), found[1])


def publish_merged(store: Store, layout: Layout, report: MergedReport) -> tuple[MergedReport, str]:
    """Store the report, unless this manifest has one; the one that is there now and its SHA-256."""
    key = layout.report(report.digest, report.gate_hash)
    if not store.put(key, encode(report), exclusive=True):
        there = find_merged(store, layout, report.digest, report.gate_hash)
        if there is not None and there[0].manifest_sha256 == report.manifest_sha256:
            return there
        store.put(key, encode(report))
    found = find_merged(store, layout, report.digest, report.gate_hash)
    assert found is not None
    return found
