"""What the gate measured of a revision, and where its page lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vectorindex_operator.core.observation import RevisionView
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.revision import RecallFacts
from vectorindex_searcher.artifact.layout import PAGE_FILE, Layout
from vectorindex_searcher.contract import Identity, RerankProof, SegmentRecall


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One class of queries. `name`: all, a segment, or of live queries. `low`: the lower bound of recall. `judged`:
    that it can hold a revision up; None: as its queries allow."""

    name: str
    queries: int
    recall: float
    low: float
    mrr: float | None
    relevance_mrr: float | None
    judged: bool | None

    @classmethod
    def of(cls, row: SegmentRecall, name: str) -> ClassFacts:
        return cls(name, row.queries, row.recall, row.recall_low, row.mrr, row.relevance_mrr, row.judged)


@dataclass(frozen=True, slots=True)
class GainFacts:
    """What the order of the cross-encoder gains on labelled queries: MRR and nDCG@10 without and with it, and between
    which two the mean difference is, with 95 % confidence."""

    queries: int
    mrr: tuple[float, float]
    mrr_gain: tuple[float, float]
    ndcg: tuple[float, float]
    ndcg_gain: tuple[float, float]

    @classmethod
    def of(cls, proof: RerankProof) -> GainFacts:
        mrr, ndcg = proof.mrr, proof.ndcg
        return cls(
            proof.queries,
            (mrr.without, mrr.reranked),
            (mrr.low, mrr.high),
            (ndcg.without, ndcg.reranked),
            (ndcg.low, ndcg.high),
        )


@dataclass(frozen=True, slots=True)
class ProofFacts:
    """`verdict`: Pass, Fail or Inconclusive; empty: not judged yet. `truth`: as of RecallFacts. `reranking`: None
    where there is no cross-encoder, or no labelled query in words. `report` and `page`: where report.json and
    report.html lie in the store of artifacts."""

    revision: str
    verdict: str
    reason: str
    message: str
    k: int
    confidence: float
    rows: int
    truth: str
    p50_ms: float
    p95_ms: float
    cost_us: float | None
    canary_recall: float
    classes: tuple[ClassFacts, ...]
    live: str
    reranking: GainFacts | None
    report: str
    page: str

    @classmethod
    def of(cls, namespace: str, view: RevisionView) -> ProofFacts:
        """Raises EndedError for a revision that was not measured."""
        report, gate, frozen = view.status.report, view.status.gate, view.spec
        if report is None:
            phase = view.status.phase
            raise EndedError(Exit.NOT_FOUND, f"{view.name} was not measured yet: it is {phase}")
        layout = Layout(frozen.artifacts.root, Identity(namespace=namespace, name=frozen.index))
        return cls(
            revision=view.name,
            verdict=gate.verdict if gate is not None else "",
            reason=gate.reason if gate is not None else "",
            message=gate.message if gate is not None else "",
            k=report.k,
            confidence=report.confidence,
            rows=report.count,
            truth=RecallFacts.of(report).truth,
            p50_ms=report.p50_ms,
            p95_ms=report.p95_ms,
            cost_us=report.cost_us,
            canary_recall=report.canary_recall,
            classes=(
                ClassFacts.of(report.overall, "all"),
                *(ClassFacts.of(row, row.segment or "other") for row in report.segments),
                *_live(report.live or ()),
            ),
            live=report.live_note or "",
            reranking=GainFacts.of(report.rerank) if report.rerank is not None else None,
            report=frozen.artifacts.url(layout.report(frozen.digest, report.gate_hash)),
            page=frozen.artifacts.url(layout.report(frozen.digest, report.gate_hash, PAGE_FILE)),
        )


def _live(rows: Iterable[SegmentRecall]) -> Iterable[ClassFacts]:
    return (ClassFacts.of(row, f"live: {row.segment}" if row.segment else "live") for row in rows)
