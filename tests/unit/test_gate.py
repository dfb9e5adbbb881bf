"""The gate: a report against `spec.gate`. What passes, what fails, what nobody can know yet."""

from __future__ import annotations

from typing import Any

import pytest
from observations import NOW, report, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GateStatus, VectorIndexSpec
from vectorindex_operator.core import gate, identity
from vectorindex_searcher.contract import WITH_A_FILTER, SegmentRecall, ValidateResult

QUERIES = {"s3": {"bucket": "queries"}, "segmentColumn": "lang"}
SEGMENTED: dict[str, Any] = {
    "segments": [{"name": "fr"}, {"name": "de"}],
    "gate": {"queries": QUERIES, "segments": [{"name": "fr", "min": 0.9}]},
}
LABELLED: dict[str, Any] = {"gate": {"queries": QUERIES, "relevance": {"relevantColumn": "right", "minMRR": 0.5}}}


def row(segment: str = "", recall: float = 0.98, low: float = 0.97, queries: int = 1000, **more: Any) -> SegmentRecall:
    return SegmentRecall(segment=segment, queries=queries, recall=recall, recall_low=low, **more)


def judge(
    of: VectorIndexSpec,
    stable: int | gate.Stable | None = None,
    columns: dict[str, str] | None = None,
    built_us: float | None = None,
    **changes: Any,
) -> GateStatus:
    measured: ValidateResult = report(of).model_copy(update=changes)
    known = stable if isinstance(stable, gate.Stable) else gate.Stable(stable, columns or {})
    return gate.judge(measured, of, known, NOW, built_us=built_us)


@pytest.mark.parametrize(
    ("recall", "low", "verdict", "reason"),
    [
        (0.98, 0.97, "Pass", "RecallProven"),
        (0.96, 0.95, "Pass", "RecallProven"),  # exactly at the limit is proven
        (0.96, 0.9499, "Inconclusive", "RecallUncertain"),
        (0.95, 0.94, "Inconclusive", "RecallUncertain"),
        (0.9499, 0.94, "Fail", "RecallBelowMin"),
        (0.0, 0.0, "Fail", "RecallBelowMin"),
        (float("nan"), float("nan"), "Inconclusive", "RecallUncertain"),
    ],
)
def test_the_lower_bound_proves_and_the_estimate_rejects(recall: float, low: float, verdict: str, reason: str) -> None:
    said = judge(spec(), overall=row(recall=recall, low=low))
    assert (said.verdict, said.reason) == (verdict, reason)


def test_what_was_measured_against_reconstructions_claims_no_recall_of_vectors() -> None:
    passed = judge(spec(), truth="Reconstructions")
    assert (passed.verdict, passed.reason) == ("Pass", "RecallOfReconstructions")
    missed = judge(spec(), truth="Reconstructions", overall=row(recall=0.5, low=0.4))
    assert (missed.verdict, missed.reason) == ("Fail", "RecallBelowMin")
    assert all("what its codes lost is unknown" in str(said.message) for said in (passed, missed))


def test_a_source_of_few_rows_is_told_what_would_prove_it() -> None:
    nothing = judge(spec(), overall=row(recall=0.0, low=0.0, queries=0))
    few = judge(spec(), overall=row(recall=1.0, low=0.9, queries=25))
    assert [(said.verdict, said.reason) for said in (nothing, few)] == [
        ("Inconclusive", "TooFewQueries"), ("Inconclusive", "RecallUncertain"),
    ]  # fmt: skip
    assert all("Flat" in str(said.message) and "gate.queries" in str(said.message) for said in (nothing, few))


def test_the_message_has_the_numbers_and_the_verdict_its_hashes() -> None:
    of = spec()
    passed = judge(of)
    assert passed.message == (
        "recall@10 0.9800 (at least 0.9700 with 95% confidence, 1000 queries), limit 0.95"
    )  # fmt: skip
    assert (passed.gate_hash, passed.thresholds_hash) == (identity.gate_hash(of), identity.thresholds_hash(of))
    assert passed.at == to_text(NOW)
    failed = judge(of, overall=row(recall=0.9, low=0.88))
    assert failed.message == (
        "recall@10 is 0.9000, at least 0.8800 with 95% confidence on 1000 queries; the limit is 0.95"
    )  # fmt: skip
    doubtful = judge(of, overall=row(recall=0.96, low=0.94))
    assert doubtful.message.endswith(": more gate queries would decide it")


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        ((row("fr", 0.95, 0.92),), "Pass", "RecallProven"),
        ((row("fr", 0.95, 0.89),), "Inconclusive", "RecallUncertain"),
        ((row("fr", 0.85, 0.80),), "Fail", "SegmentRecallBelowMin"),
        ((row("fr", 0.95, 0.92, queries=59),), "Inconclusive", "TooFewQueries"),
        ((row("fr", 0.50, 0.40, queries=59),), "Inconclusive", "TooFewQueries"),
        ((row("fr", 0.95, 0.92, queries=60),), "Pass", "RecallProven"),
        ((), "Inconclusive", "TooFewQueries"),
        # a segment without a floor of its own is held to the floor of all, once it has queries enough
        ((row("fr", 0.95, 0.92), row("de", 0.97, 0.96)), "Pass", "RecallProven"),
        ((row("fr", 0.95, 0.92), row("de", 0.93, 0.92)), "Fail", "SegmentRecallBelowMin"),
        # with fewer it holds nothing up, and fails only when it is bad beyond doubt
        ((row("fr", 0.95, 0.92), row("de", 0.93, 0.90, queries=299)), "Pass", "RecallProven"),
        ((row("fr", 0.95, 0.92), row("de", 0.96, 0.92, queries=299)), "Pass", "RecallProven"),
        ((row("fr", 0.95, 0.92), row("de", 0.90, 0.87, queries=299)), "Fail", "SegmentRecallBelowMin"),
        ((row("fr", 0.95, 0.92), row("de", 0.50, 0.40, queries=59)), "Pass", "RecallProven"),
    ],
)
def test_segments(rows: tuple[SegmentRecall, ...], verdict: str, reason: str) -> None:
    said = judge(spec(**SEGMENTED), segments=rows)
    assert (said.verdict, said.reason) == (verdict, reason)
    if verdict != "Pass":
        assert rows == () or "segment" in said.message


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(WITH_A_FILTER, 0.97, 0.96), "Pass"),
        (row(WITH_A_FILTER, 0.93, 0.92), "Fail"),
        (row(WITH_A_FILTER, 0.96, 0.94), "Inconclusive"),
        (row(WITH_A_FILTER, 0.93, 0.92, judged=False), "Pass"),
    ],
)
def test_filtered_queries_are_held_to_the_floor_of_all_unless_they_are_few(found: SegmentRecall, verdict: str) -> None:
    said = judge(spec(gate={"queries": QUERIES | {"filterColumn": "only"}}), segments=(found,))
    assert said.verdict == verdict
    assert (WITH_A_FILTER in said.message) is (verdict != "Pass")


def test_segments_of_held_out_rows_have_no_floor() -> None:
    assert judge(spec(), segments=(row("fr", 0.5, 0.4),)).verdict == "Pass"


@pytest.mark.parametrize(
    ("mrr", "verdict", "reason"),
    [(0.5, "Pass", "RecallProven"), (0.499, "Fail", "RelevanceBelowMin"), (None, "Inconclusive", "NoLabels")],
)
def test_relevance(mrr: float | None, verdict: str, reason: str) -> None:
    said = judge(spec(**LABELLED), overall=row(relevance_mrr=mrr))
    assert (said.verdict, said.reason) == (verdict, reason)
    if reason == "NoLabels":
        assert "'right'" in said.message


def test_relevance_without_a_limit_is_only_reported() -> None:
    reported = spec(gate={"queries": QUERIES, "relevance": {"relevantColumn": "right"}})
    assert judge(reported, overall=row(relevance_mrr=0.01)).verdict == "Pass"


@pytest.mark.parametrize(
    ("now", "segment", "verdict"),
    [
        (0.9, 0.9, "Pass"),
        (0.81, 0.81, "Pass"),  # exactly 10 % lower
        (0.80, 0.9, "Fail"),  # a tenth of the data wrongly embedded: recall cannot see it
        (0.9, 0.80, "Fail"),
        (None, 0.9, "Inconclusive"),
    ],
)
def test_relevance_against_stable(now: float | None, segment: float, verdict: str) -> None:
    relevance = {"relevantColumn": "right", "maxDropVsStable": "10%"}
    of = spec(segments=[{"name": "fr"}], gate={"queries": QUERIES, "relevance": relevance})
    stable = gate.Stable(relevance={"": 0.9, "fr": 0.9})
    rows = (row("fr", relevance_mrr=segment, queries=60),)
    said = judge(of, stable, overall=row(relevance_mrr=now), segments=rows)
    assert (said.verdict, said.reason) == (
        verdict, {"Pass": "RecallProven", "Fail": "RelevanceDropped", "Inconclusive": "NoLabels"}[verdict]
    )  # fmt: skip
    # Of fewer than 60 queries, or of a stable that other queries measured, nothing is said.
    if verdict == "Fail":
        few = (row("fr", relevance_mrr=segment, queries=59),)
        assert judge(of, stable, overall=row(relevance_mrr=0.9), segments=few).verdict == "Pass"
        assert judge(of, gate.Stable(), overall=row(relevance_mrr=now), segments=rows).verdict == "Pass"
        assert gate.relevances(report(of).model_copy(update={"segments": few})) == {}


@pytest.mark.parametrize(
    ("cost", "built", "stable", "rise", "verdict"),
    [
        (200.0, 80.0, 100.0, "100%", "Pass"),  # exactly twice
        (201.0, 80.0, 100.0, "100%", "Inconclusive"),
        (201.0, 80.0, 100.0, "150%", "Pass"),
        (201.0, 80.0, None, "100%", "Pass"),  # the first revision
        (201.0, 201.0, 100.0, "100%", "Pass"),  # no wider than it was built: another kind of index costs more
        (None, 80.0, 100.0, "100%", "Pass"),  # an older searcher does not tell
    ],
)
def test_a_wider_search_is_paid_for_up_to_a_limit(
    cost: float | None, built: float, stable: float | None, rise: str, verdict: str
) -> None:
    of = spec(gate={"queries": QUERIES, "maxCostRise": rise})
    said = judge(of, gate.Stable(cost_us=stable), built_us=built, cost_us=cost)
    assert said.verdict == verdict
    if verdict != "Pass":
        assert (said.reason, "201 us" in str(said.message), "101% more" in str(said.message)) == (
            "CostRose",
            True,
            True,
        )
    assert (
        judge(spec(gate={"maxCostRise": rise}), gate.Stable(cost_us=1.0), built_us=1.0, cost_us=9.0).verdict == "Pass"
    )


@pytest.mark.parametrize(
    ("stable", "count", "verdict", "reason"),
    [
        (None, 1, "Pass", "RecallProven"),
        (0, 1, "Pass", "RecallProven"),
        (1000, 900, "Pass", "RecallProven"),  # exactly 10 % fewer
        (1000, 899, "Fail", "CountDropped"),
        (1000, 1500, "Pass", "RecallProven"),
        (1000, 1501, "Fail", "CountRose"),
    ],
)
def test_counts(stable: int | None, count: int, verdict: str, reason: str) -> None:
    said = judge(spec(), stable, count=count)
    assert (said.verdict, said.reason) == (verdict, reason)


def test_an_answered_deleted_id_fails() -> None:
    said = judge(spec(), tombstoned_found=2)
    assert (said.verdict, said.reason, said.message) == ("Fail", "TombstonesFound", "searches answered 2 deleted ids")


def test_fail_beats_inconclusive_and_every_failure_is_said() -> None:
    said = judge(spec(**SEGMENTED), 1000, overall=row(recall=0.9, low=0.8), segments=(), count=10)
    assert (said.verdict, said.reason) == ("Fail", "RecallBelowMin")
    assert said.message == (
        "recall@10 is 0.9000, at least 0.8000 with 95% confidence on 1000 queries; the limit is 0.95; "
        "10 rows are 99.0% fewer than stable's 1000; gate.maxCountDrop is 10%"
    )


COLUMNS: dict[str, Any] = {"source": {"columns": {"metadata": ["lang", "size"]}}}


@pytest.mark.parametrize(
    ("stable", "now", "reason"),
    [
        ("si", "si", "RecallProven"),
        ("si", "ni", "ColumnTypeChanged"),
        ("si", "ii", "ColumnTypeChanged"),
        ("si", "oi", "ColumnTypeChanged"),
        ("si", "Si", "ColumnTypeChanged"),
        ("td", "dt", "ColumnTypeChanged"),
        ("si", "sf", "RecallProven"),  # whole numbers are floats
        ("sf", "si", "ColumnTypeChanged"),  # 9.99 is no integer: every filter with it would be refused
        ("sI", "sF", "RecallProven"),
        ("sI", "sf", "ColumnTypeChanged"),
        ("ni", "si", "RecallProven"),  # nobody could filter on it before
        ("oi", "bi", "RecallProven"),
        ("", "ni", "RecallProven"),  # stable's result is of a release that did not tell
        ("si", None, "RecallProven"),
        ("s?", "s!", "ColumnTypeChanged"),
        ("s?", "s?", "RecallProven"),
    ],
)
def test_a_column_keeps_its_type_or_one_that_takes_more(stable: str, now: str | None, reason: str) -> None:
    before = gate.column_types(
        spec(**COLUMNS).source.columns, report(spec()).model_copy(update={"column_types": stable})
    )
    said = judge(spec(**COLUMNS), 10_000, before, column_types=now)
    assert (said.reason, said.verdict) == (reason, "Pass" if reason == "RecallProven" else "Fail")


def test_a_changed_column_is_named_with_both_types_and_what_to_do() -> None:
    said = judge(spec(**COLUMNS), 10_000, {"lang": "s", "size": "i"}, column_types="nS")
    assert said.message == (
        "metadata column 'lang' is null, stable's is string, 'size' is list of string, stable's is integer: filters on "
        "it would be refused after the switch; mend the data, or name the column in gate.allowColumnChanges"
    )


def test_a_change_of_type_may_be_allowed_by_column() -> None:
    allowed = spec(**COLUMNS, gate={"allowColumnChanges": ["lang"]})
    assert judge(allowed, 10_000, {"lang": "s", "size": "i"}, column_types="ni").verdict == "Pass"
    assert judge(allowed, 10_000, {"lang": "s", "size": "i"}, column_types="ns").reason == "ColumnTypeChanged"
    assert identity.thresholds_hash(allowed) != identity.thresholds_hash(spec(**COLUMNS)), "it is judged again"


def test_columns_that_only_one_of_both_has_are_not_compared() -> None:
    assert judge(spec(**COLUMNS), 10_000, {"colour": "s", "size": "i"}, column_types="ni").verdict == "Pass"


GONE = "; metadata column 'colour' of stable is gone: answers lack it, and filters on it are refused"


def test_a_column_that_is_gone_is_told_and_is_no_failure() -> None:
    """To drop it is the user's right, and so is to know that he does."""
    stable = gate.Stable(10_000, metadata=("lang", "size", "colour"))
    said = judge(spec(**COLUMNS), stable)
    assert (said.verdict, said.message.endswith(GONE)) == ("Pass", True)
    assert "is gone" not in judge(spec(**COLUMNS, gate={"allowColumnChanges": ["colour"]}), stable).message
    assert "is gone" not in judge(spec(**COLUMNS), gate.Stable(10_000, metadata=("size", "lang"))).message
    many = gate.Stable(10_000, metadata=tuple(f"{number:0128d}" for number in range(32)))
    assert len(judge(spec(**COLUMNS), many).message) < 1024


@pytest.mark.parametrize(
    ("now", "before", "columns", "told"),
    [
        (False, True, ("lang",), True),
        (False, False, ("lang",), False),
        (False, None, ("lang",), False),  # an image from before did not tell
        (None, True, ("lang",), False),
        (True, True, ("lang",), False),
        (False, True, (), False),  # there was nothing to filter by
    ],
)
def test_an_index_that_takes_no_filter_is_told_where_stable_takes_them(
    now: bool | None, before: bool | None, columns: tuple[str, ...], told: bool
) -> None:
    said = judge(spec(**COLUMNS), gate.Stable(10_000, metadata=columns, filters=before), filters=now)
    assert (said.verdict, "takes no filter" in said.message) == ("Pass", told)


def test_many_changed_columns_make_no_endless_message() -> None:
    names = [f"{number:0128d}" for number in range(32)]
    said = judge(
        spec(source={"columns": {"metadata": names}}), 10_000, dict.fromkeys(names, "s"), column_types="n" * 32
    )
    assert " and 28 more: " in said.message
    assert len(said.message) < 1024


# ---------------------------------------------------------------- live queries

LIVE: dict[str, Any] = {"gate": {"queries": {"live": {}}}}
NOTE = "1000 live queries of 50 senders, 500 of them tuned"


def voices(recall: float, high: float, queries: int = 500, name: str = "live queries") -> SegmentRecall:
    """What the senders of live queries show."""
    low = 2 * recall - high
    return row(name, recall, low, queries=queries).model_copy(update={"recall_high": high, "senders": 50})


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        ((voices(0.97, 0.98),), "Pass", "RecallProven"),
        # too few to show that it is good enough is no reason to hold; to show that it is not, is one
        ((voices(0.93, 0.951),), "Pass", "RecallProven"),
        ((voices(0.93, 0.949),), "Inconclusive", "LiveRecallBelowMin"),
        ((voices(0.10, 0.20, queries=59),), "Pass", "RecallProven"),
        ((voices(0.97, 0.98), voices(0.9, 0.92, name="live queries, same as a row")),
         "Inconclusive", "LiveRecallBelowMin"),
        # of an image that counted each query by itself
        ((row("live queries", 0.96, 0.949, queries=500),), "Pass", "RecallProven"),
        ((row("live queries", 0.94, 0.925, queries=500),), "Pass", "RecallProven"),
        ((row("live queries", 0.93, 0.920, queries=500),), "Inconclusive", "LiveRecallBelowMin"),
        ((row("live queries", 0.10, 0.050, queries=59),), "Pass", "RecallProven"),
        ((), "Pass", "RecallProven"),
    ],
)  # fmt: skip
def test_live_queries_hold_and_never_reject_by_themselves(
    rows: tuple[SegmentRecall, ...], verdict: str, reason: str
) -> None:
    of = spec(**LIVE)
    said = judge(of, live=rows or None, live_note=NOTE)
    assert (said.verdict, said.reason) == (verdict, reason)
    if verdict != "Pass":
        assert "of live queries" in said.message
        assert "gate.queries.live" in said.message
        assert said.reason not in gate.RECALL_REASONS, "who asks must not make the gate's own queries harder to pass"


def test_what_the_gate_asks_else_must_pass_too() -> None:
    of, fine = spec(**LIVE), (row("live queries", 1.0, 0.99, queries=500),)
    assert judge(of, overall=row(recall=0.9, low=0.88), live=fine, live_note=NOTE).reason == "RecallBelowMin"
    bad = (row("live queries", 0.5, 0.4, queries=500),)
    assert judge(of, overall=row(recall=0.9, low=0.88), live=bad, live_note=NOTE).verdict == "Fail"


def test_a_verdict_tells_what_became_of_live_queries_where_they_are_asked_for() -> None:
    of = spec(**LIVE)
    judged = judge(of, live=(voices(0.97, 0.98),), live_note=NOTE)
    assert judged.message.endswith(f"limit 0.95; live queries 0.9700 (between 0.9600 and 0.9800), {NOTE}")
    held = judge(of, live=(voices(0.9, 0.92),), live_note=NOTE)
    assert (
        "is 0.9000, at most 0.9200 with 95% confidence on 500 queries of 50 senders; the limit is 0.95" in held.message
    )
    why = "there is no stable revision whose users ask anything"
    assert judge(of, live_note=why).message.endswith(f"; live queries not judged: {why}")
    assert judge(of).message.endswith("live queries not judged: the image of this revision does not know them")
    taken_back = judge(spec(), live=(row("live queries", 0.1, 0.05, queries=500),), live_note=NOTE)
    assert (taken_back.verdict, "live" in taken_back.message) == ("Pass", False)


def test_a_search_that_live_queries_widen_has_its_price() -> None:
    stable = gate.Stable(10_000, {}, cost_us=100.0)
    assert judge(spec(**LIVE), stable, built_us=90.0, cost_us=201.0, live_note=NOTE).reason == "CostRose"
