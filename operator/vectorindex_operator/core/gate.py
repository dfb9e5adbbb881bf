"""The gate: a recall report against the thresholds of `spec.gate`. Pure; the verdict is Pass, Fail or Inconclusive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vectorindex_operator.api.quantities import share
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GateStatus, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_searcher.contract import (
    COLUMN_TYPES,
    ENCODER_COSINE,
    ENCODER_DEVIATING,
    ENCODER_NORM,
    FEW_QUERIES,
    FEWEST_QUERIES,
    LIVE_CONFIDENCE,
    SEGMENT_QUERIES,
    Columns,
    EncoderProof,
    RerankProof,
    SegmentRecall,
    ValidateResult,
)

MIN_ENCODED_ROWS = 20
"""An encoder is believed after so many rows."""
MIN_SEGMENT_QUERIES = FEWEST_QUERIES
"""A segment's own floor is judged on at least this many queries. What has no floor of its own is judged by its bound
from SEGMENT_QUERIES on; with fewer it only fails, where even its upper bound misses the floor of all."""

RECALL_REASONS = frozenset({"RecallBelowMin", "SegmentRecallBelowMin", "RecallUncertain"})
"""Verdicts by the luck of the queries: another look may fall out otherwise. Not those of live queries: where they hold,
the gate's own have passed, and what a user asks must not make these harder to pass."""

_FEW_ROWS = "more queries (gate.queries) would decide it, and an index of few rows can be exact (index.factory Flat)"
_OF_RECONSTRUCTIONS = (
    "measured against what the imported index gives back of its vectors, since the source has none: what its codes "
    "lost is unknown"
)
_SHOWN_COLUMNS = 4
_TYPE_NAMES = {letter: name for name, letter in COLUMN_TYPES.items()}
_UNFILTERED = {COLUMN_TYPES["null"], COLUMN_TYPES["other"]}
_WIDER = {(COLUMN_TYPES["integer"], COLUMN_TYPES["float"])}

_Finding = tuple[str, str]  # reason, message


@dataclass(frozen=True, slots=True)
class Stable:
    """What the stable revision is compared by. Without one, or where an older release did not tell: nothing."""

    count: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Metadata column -> letter of its type."""
    cost_us: float | None = None
    """CPU time of a query, microseconds."""
    relevance: Mapping[str, float] = field(default_factory=dict)
    """Class of queries (empty: all) -> MRR of the right answers; empty when it was measured by other queries."""
    metadata: tuple[str, ...] = ()
    """Its metadata columns, of whatever type."""
    filters: bool | None = None
    """Whether it takes filters."""


def let_none_pass(verdict: GateStatus) -> bool:
    """Whether the luck of the queries decided, and nothing passed: the next look is to be surer."""
    return verdict.verdict != "Pass" and verdict.reason in RECALL_REASONS


def column_types(columns: Columns, report: ValidateResult | None) -> dict[str, str]:
    """Metadata column -> letter of its type, as far as it was told."""
    told = (report.column_types if report is not None else None) or ""
    return dict(zip(columns.metadata, told, strict=False))


def relevances(report: ValidateResult) -> dict[str, float]:
    """Class of queries (empty: all) -> MRR of the right answers, of those that are many enough to be judged."""
    many = (row for row in report.segments if row.queries >= MIN_SEGMENT_QUERIES and row.judged is not False)
    rows = (report.overall, *many)
    return {row.segment: row.relevance_mrr for row in rows if row.relevance_mrr is not None}


def judge(
    report: ValidateResult, spec: VectorIndexSpec, stable: Stable, now: float, *, built_us: float | None = None
) -> GateStatus:
    """Judge `report` by `spec.gate`, and against the stable revision. built_us: CPU time of a query at the point that
    the build chose, before a user's queries asked for more.

    Fail beats Inconclusive beats Pass; the message carries every finding with its numbers.
    """
    gate = spec.gate
    failures: list[_Finding] = []
    doubts: list[_Finding] = []
    _recall(report.overall, gate.recall.min, report, failures, doubts)
    floors = {s.name: s.min for s in gate.segments}
    measured = {s.segment: s for s in report.segments}
    for name, floor in floors.items():
        row = measured.get(name)
        if row is None or row.queries < MIN_SEGMENT_QUERIES:
            found = row.queries if row else 0
            doubts.append(("TooFewQueries", f"segment {name} has {found} queries, {MIN_SEGMENT_QUERIES} are needed"))
        else:
            _recall(row, floor, report, failures, doubts)
    for row in report.segments:
        if gate.given is None or row.segment in floors or row.queries < MIN_SEGMENT_QUERIES or row.judged is False:
            continue
        high = 2 * row.recall - row.recall_low
        if row.queries >= SEGMENT_QUERIES or high < gate.recall.min:
            _recall(row, gate.recall.min, report, failures, doubts)
    _live(report, spec, doubts)
    _relevance(report, spec, stable, failures, doubts)
    _cost(report.cost_us, built_us, stable.cost_us, spec, doubts)
    _count(report.count, stable.count, spec, failures)
    _columns(column_types(spec.source.columns, report), stable.columns, spec, failures)
    _encoder(report, spec, failures, doubts)
    _rerank(report, spec, failures, doubts)
    if report.tombstoned_found:
        failures.append(("TombstonesFound", f"searches answered {report.tombstoned_found} deleted ids"))
    verdict, findings = ("Fail", failures) if failures else ("Inconclusive", doubts) if doubts else ("Pass", [])
    low = report.overall
    summary = (
        f"recall@{report.k} {low.recall:.4f} (at least {low.recall_low:.4f} with {report.confidence:.0%} confidence, "
        f"{low.queries} queries), limit {gate.recall.min}{_live_note(report, spec)}{_encoder_note(report, spec)}"
        f"{_rerank_note(report, spec)}"
    )
    if lost := lost_filters(report, spec, stable):
        summary += f"; {lost}"
    message, proven = "; ".join(m for _, m in findings) if findings else summary, "RecallProven"
    if report.truth is not None:
        message, proven = f"{message}; {_OF_RECONSTRUCTIONS}", "RecallOfReconstructions"
    return GateStatus(
        gate_hash=report.gate_hash,
        thresholds_hash=identity.thresholds_hash(spec),
        verdict=verdict,
        reason=findings[0][0] if findings else proven,
        message=message,
        at=to_text(now),
    )


def _recall(
    row: SegmentRecall, floor: float, report: ValidateResult, failures: list[_Finding], doubts: list[_Finding]
) -> None:
    if row.recall_low >= floor:
        return
    if not row.queries:
        doubts.append(("TooFewQueries", f"there are no queries{_of(row)}: {_FEW_ROWS}"))
        return
    where = _of(row)
    numbers = (
        f"recall@{report.k}{where} is {row.recall:.4f}, at least {row.recall_low:.4f} with "
        f"{report.confidence:.0%} confidence on {row.queries} queries; the limit is {floor}"
    )
    if row.recall < floor:
        failures.append(("SegmentRecallBelowMin" if row.segment else "RecallBelowMin", numbers))
    else:
        remedy = "more gate queries would decide it" if row.queries >= FEW_QUERIES else _FEW_ROWS
        doubts.append(("RecallUncertain", f"{numbers}: {remedy}"))


def _live(report: ValidateResult, spec: VectorIndexSpec, doubts: list[_Finding]) -> None:
    """What users ask can hold a revision, not condemn it: whoever may ask the index chooses what is in the sample. So
    it holds where senders show that recall is below the floor, not where they are too few to show that it is not."""
    floor = spec.gate.recall.min
    for row in report.live or () if spec.gate.live is not None else ():
        high, sure = _live_high(row, report)
        if row.queries < MIN_SEGMENT_QUERIES or high >= floor:
            continue
        whose = f" of {row.senders} senders" if row.senders is not None else ""
        doubts.append(
            ("LiveRecallBelowMin",
             f"recall@{report.k} of {row.segment} is {row.recall:.4f}, at most {high:.4f} with {sure:.0%} confidence "
             f"on {row.queries} queries{whose}; the limit is {floor}: what stable's users ask is "
             "harder than what the gate asked else; a higher index.objective.recall, another index.factory, or "
             "a gate without gate.queries.live would let it pass")
        )  # fmt: skip


def _live_high(row: SegmentRecall, report: ValidateResult) -> tuple[float, float]:
    """What a row of live queries shows recall to be at most, and how surely: by its senders, or by each query for
    itself, where an image from before told it."""
    if row.recall_high is not None:
        return row.recall_high, LIVE_CONFIDENCE
    return 2 * row.recall - row.recall_low, report.confidence


def _live_note(report: ValidateResult, spec: VectorIndexSpec) -> str:
    """What became of live queries, where the spec asks for them."""
    if spec.gate.live is None:
        return ""
    rows = [
        f"{row.segment} {row.recall:.4f} (between {row.recall_low:.4f} and {_live_high(row, report)[0]:.4f})"
        for row in report.live or ()
    ]
    note = report.live_note or "the image of this revision does not know them"
    return "; " + ", ".join([*rows, note if rows else f"live queries not judged: {note}"])


def _of(row: SegmentRecall) -> str:
    return f" of segment {row.segment}" if row.segment else ""


def _relevance(
    report: ValidateResult, spec: VectorIndexSpec, stable: Stable, failures: list[_Finding], doubts: list[_Finding]
) -> None:
    relevance = spec.gate.relevance
    if relevance is None:
        return
    value = report.overall.relevance_mrr
    limited = relevance.min_mrr is not None or relevance.max_drop_vs_stable is not None
    if limited and value is None:
        doubts.append(("NoLabels", f"gate.relevance needs labelled queries: column {relevance.relevant_column!r}"))
    elif relevance.min_mrr is not None and value is not None and value < relevance.min_mrr:
        failures.append(
            ("RelevanceBelowMin", f"MRR of the right answers is {value:.3f}, the limit {relevance.min_mrr}")
        )
    if relevance.max_drop_vs_stable is None:
        return
    for name, mrr in relevances(report).items():
        before = stable.relevance.get(name, 0.0)
        if before > 0 and 1 - mrr / before > share(relevance.max_drop_vs_stable):
            where = f" of segment {name}" if name else ""
            failures.append(
                ("RelevanceDropped", f"MRR of the right answers{where} is {mrr:.3f}, {1 - mrr / before:.1%} below "
                 f"stable's {before:.3f}; gate.relevance.maxDropVsStable is {relevance.max_drop_vs_stable}")
            )  # fmt: skip


def _cost(
    now: float | None, built: float | None, stable: float | None, spec: VectorIndexSpec, doubts: list[_Finding]
) -> None:
    """A wider search than was built is better than a rejection, up to a price; beyond it a person decides."""
    if spec.gate.queries is None or not now or not stable or built is None or now <= built:
        return
    rise = now / stable - 1
    if rise > share(spec.gate.max_cost_rise):
        doubts.append(
            ("CostRose", f"with the search parameters that reach the recall a query takes {now:.0f} us of CPU, "
             f"{rise:.0%} more than stable's {stable:.0f} us; gate.maxCostRise is {spec.gate.max_cost_rise}")
        )  # fmt: skip


def _count(count: int, stable: int | None, spec: VectorIndexSpec, failures: list[_Finding]) -> None:
    if not stable:
        return
    change = (count - stable) / stable
    if -change > share(spec.gate.max_count_drop):
        failures.append(
            ("CountDropped", f"{count} rows are {-change:.1%} fewer than stable's {stable}; "
             f"gate.maxCountDrop is {spec.gate.max_count_drop}")
        )  # fmt: skip
    if change > share(spec.gate.max_count_rise):
        failures.append(
            ("CountRose", f"{count} rows are {change:.1%} more than stable's {stable}; "
             f"gate.maxCountRise is {spec.gate.max_count_rise}")
        )  # fmt: skip


def _encoder(report: ValidateResult, spec: VectorIndexSpec, failures: list[_Finding], doubts: list[_Finding]) -> None:
    """What makes vectors of queries must be what made those of the index: recall cannot see that it is not."""
    if spec.embedding.encoder is None:
        return
    proof, column = report.encoder, spec.embedding.encoder.text_column
    if proof is None or proof.rows < MIN_ENCODED_ROWS:
        rows = 0 if proof is None else proof.rows
        doubts.append(
            ("EncoderNotCompared", f"{rows} rows have a text in {column!r} that the encoder takes whole, "
             f"{MIN_ENCODED_ROWS} are needed to compare it with the index")
        )  # fmt: skip
    if proof is None:
        return
    figures = _encoder_figures(proof)
    if proof.deviating_low > ENCODER_DEVIATING:
        failures.append(
            ("EncoderDeviates", f"embedding.encoder makes other vectors of {column!r} than the index has: {figures}, "
             f"at least {proof.deviating_low:.1%} of all; {ENCODER_DEVIATING:.0%} may. Another model, pooling or "
             "documentPrefix made them, or another text")
        )  # fmt: skip
    elif proof.norm_ratio is not None and abs(proof.norm_ratio - 1) > ENCODER_NORM:
        failures.append(
            ("EncoderNormDeviates", f"embedding.encoder makes vectors {proof.norm_ratio:.3f} times as long as those of "
             f"the index ({figures}): one of both is normalised, and under {spec.embedding.metric.value} that matters")
        )  # fmt: skip


def _rerank(report: ValidateResult, spec: VectorIndexSpec, failures: list[_Finding], doubts: list[_Finding]) -> None:
    """An order that users are surely worse off with serves nobody. One that gains nothing does no harm but its cost."""
    if spec.searcher.rerank is None or not spec.gate.measures_rerank:
        return
    proof = report.rerank
    if proof is None or not proof.queries:
        doubts.append(
            ("RerankNotMeasured", "no labelled query of gate.queries has a text, or the image of this revision does "
             "not know them: what the order of searcher.rerank gains is not known")
        )  # fmt: skip
    elif proof.harms:
        failures.append(
            ("RerankHarms", f"users are answered worse in the order of searcher.rerank: {_gains(proof)}; another "
             "model, textColumn or fewer candidates may do better, and none at all does")
        )  # fmt: skip


def _gains(proof: RerankProof) -> str:
    """With and without, in words."""
    figures = (("MRR of the right answers", proof.mrr), ("nDCG@10", proof.ndcg))
    said = (
        f"{name} {one.without:.3f} without, {one.reranked:.3f} with it (difference {one.low:+.3f} to {one.high:+.3f})"
        for name, one in figures
    )
    return f"{', '.join(said)}, on {proof.queries} labelled queries with 95% confidence"


def _rerank_note(report: ValidateResult, spec: VectorIndexSpec) -> str:
    """What the order gains, where it is measured; and that it is not, where there is one."""
    if spec.searcher.rerank is None:
        return ""
    proof = report.rerank if spec.gate.measures_rerank else None
    if proof is None:
        return "; what searcher.rerank gains is not measured (gate.queries.textColumn)"
    return f"; reranked: {_gains(proof)}"


def _encoder_figures(proof: EncoderProof) -> str:
    return f"median cosine {proof.cosine:.4f}, {proof.deviating} of {proof.rows} rows below {ENCODER_COSINE}"


def _encoder_note(report: ValidateResult, spec: VectorIndexSpec) -> str:
    """For a message of recall: that queries in words are of the same model."""
    if spec.embedding.encoder is None or report.encoder is None:
        return ""
    return f"; the encoder makes the vectors of the index: {_encoder_figures(report.encoder)}"


def _columns(
    now: Mapping[str, str], stable: Mapping[str, str], spec: VectorIndexSpec, failures: list[_Finding]
) -> None:
    """Filters that stable takes must be taken after the switch: a column keeps its type, or one that takes more."""
    changed = [
        f"{name[:128]!r} is {_type_name(kind)}, stable's is {_type_name(stable[name])}"
        for name, kind in now.items()
        if name in stable and name not in spec.gate.allow_column_changes and not _takes_all(kind, stable[name])
    ]
    if changed:
        remedy = "mend the data, or name the column in gate.allowColumnChanges"
        failures.append(
            ("ColumnTypeChanged", f"metadata column {_some(changed)}: filters on it would be refused after the switch; "
             f"{remedy}")
        )  # fmt: skip


def lost_filters(report: ValidateResult, spec: VectorIndexSpec, stable: Stable) -> str:
    """What users filter by in stable and not in this revision, for people to know; empty: nothing. It is no failure: to
    drop a column, or to choose another type of index, is the user's right, and only traffic tells who misses it."""
    meant = {*spec.source.columns.metadata, *spec.gate.allow_column_changes}
    gone = [f"{name[:128]!r}" for name in stable.metadata if name not in meant]
    notes = []
    if gone:
        notes.append(f"metadata column {_some(gone)} of stable is gone: answers lack it, and filters on it are refused")
    if report.filters is False and stable.filters and stable.metadata:
        notes.append("an index of this type takes no filter, and stable's does")
    return "; ".join(notes)


def _some(names: list[str]) -> str:
    """The first few."""
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(names[:_SHOWN_COLUMNS]) + more


def _takes_all(kind: str, before: str) -> bool:
    """Whether a column takes every filter that it took before. A whole number is a legal value for floats."""
    wider = kind.isupper() == before.isupper() and (before.lower(), kind.lower()) in _WIDER
    return kind == before or before in _UNFILTERED or wider


def _type_name(letter: str) -> str:
    """In words; another release may have a letter of its own."""
    name = _TYPE_NAMES.get(letter.lower(), f"of type {letter!r}")
    return f"list of {name}" if letter.isupper() else name
