"""Digests, hashes and names: which edit builds, measures or lists anew, and which does nothing."""

from __future__ import annotations

from typing import Any

import pytest
from observations import DATA, NEW_DATA, spec

from vectorindex_operator.api.v1alpha1 import NAME_LIMIT
from vectorindex_operator.core import identity

HASHES = ("digest", "source", "build", "gate", "thresholds")
NAME_CHARACTERS = 63


def hashes(**changes: Any) -> dict[str, str]:
    changed = spec(**changes)
    return {
        "digest": identity.digest(changed, DATA),
        "source": identity.source_hash(changed),
        "build": identity.build_hash(changed),
        "gate": identity.gate_hash(changed),
        "thresholds": identity.thresholds_hash(changed),
    }


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({"index": {"factory": "HNSW32"}}, {"digest"}),
        ({"index": {"objective": {"recall": 0.97}}}, {"digest"}),
        ({"index": {"objective": {"minimise": "Memory"}}}, {"digest"}),
        ({"index": {"objective": {"memoryLimit": "4Gi"}}}, {"digest"}),
        ({"index": {"searchParams": {"nprobe": 8}}}, {"digest"}),
        ({"index": {"effort": "High"}}, {"digest"}),
        ({"index": {"effort": "Low"}}, {"digest"}),
        ({"source": {"columns": {"vector": "embedding"}}}, {"digest", "source"}),
        ({"source": {"columns": {"metadata": ["title"]}}}, {"digest", "source"}),
        ({"embedding": {"metric": "L2"}}, {"digest", "source"}),
        ({"embedding": {"model": "e5", "version": "2"}}, {"source"}),
        ({"embedding": {"dimension": 8}}, {"source"}),
        ({"source": {"s3": {"prefix": "other/"}}}, {"source"}),
        ({"artifacts": {"s3": {"bucket": "elsewhere"}}}, {"source"}),
        ({"source": {"tombstones": {"prefix": "docs/deleted/"}}}, {"digest", "source"}),
        ({"source": {"poll": "1m", "minInterval": "1h"}}, set()),
        ({"build": {"resources": {"limits": {"memory": "8Gi"}}}}, {"build"}),
        ({"build": {"device": "GPU"}}, {"build"}),
        ({"gate": {"recall": {"min": 0.9}}}, {"thresholds"}),
        ({"gate": {"maxCountDrop": "50%"}}, {"thresholds"}),
        ({"gate": {"onInconclusive": "Reject"}}, {"thresholds"}),
        ({"gate": {"k": 5}}, {"gate", "thresholds"}),
        ({"gate": {"recall": {"confidence": 0.99}}}, {"gate", "thresholds"}),
        ({"gate": {"queries": {"s3": {"bucket": "queries"}}}}, {"gate", "thresholds"}),
        ({"gate": {"queries": {"live": {}}}}, {"gate", "thresholds"}),
        ({"gate": {"queries": {"s3": {"bucket": "vectors", "prefix": "docs2/"}}}}, {"gate", "thresholds"}),
        # Below the source they are left out of its listing.
        (
            {"gate": {"queries": {"s3": {"bucket": "vectors", "prefix": "docs/asked/"}}}},
            {"source", "gate", "thresholds"},
        ),
        ({"segments": [{"name": "fr"}]}, {"gate"}),
        ({"searcher": {"replicas": 9, "minScore": 0.3, "pod": {"priorityClassName": "high"}}}, set()),
        ({"searcher": {"pod": {"env": [{"name": "TZ", "value": "UTC"}], "affinity": {"nodeAffinity": {}}}}}, set()),
        ({"build": {"pod": {"labels": {"team": "search"}}}}, {"build"}),
        ({"searcher": {"resources": {"limits": {"memory": "1Gi"}}}}, set()),
        ({"rollout": {"soak": {"duration": "1m"}}}, set()),
        ({"guardrails": {"steadyState": "Observe"}}, set()),
        ({"history": 7}, set()),
    ],
)
def test_an_edit_moves_these_hashes_and_no_other(changes: dict[str, Any], moves: set[str]) -> None:
    before, after = hashes(), hashes(**changes)
    assert {name for name in HASHES if before[name] != after[name]} == moves


def test_a_digest_is_stable_over_versions_of_the_operator() -> None:
    """This very text: an upgrade that changes it rebuilds every index of every user."""
    assert identity.digest(spec(), DATA) == "13e3a773d37bfca6398bb85729415eb161cda2059e72d3a746a8367f8262fc7c"
    assert identity.gate_hash(spec()) == "9df9c55a1bb94c24"


def test_a_segment_is_tuned_for_the_objective_or_its_floor_where_that_is_higher() -> None:
    """A floor below the objective judges the saved report again; one above it tunes and measures anew."""
    queries = {"s3": {"bucket": "queries"}, "segmentColumn": "kind"}
    declared = {"segments": [{"name": "fr"}, {"name": "de"}]}

    def of(**gate: Any) -> Any:
        return spec(**declared, gate={"queries": queries} | gate)

    assert identity.segment_targets(of()) == {"fr": 0.96, "de": 0.96}
    low, high = (of(segments=[{"name": "fr", "min": floor}]) for floor in (0.9, 0.98))
    assert identity.segment_targets(high) == {"fr": 0.98, "de": 0.96}
    assert identity.gate_hash(low) == identity.gate_hash(of())
    assert identity.gate_hash(high) != identity.gate_hash(of())
    assert identity.thresholds_hash(low) != identity.thresholds_hash(of())
    assert identity.gate_hash(of(k=5)) != identity.gate_hash(of())
    fixed = spec(**declared, gate={"queries": queries}, index={"factory": "IVF64,Flat", "searchParams": {"nprobe": 8}})
    assert identity.segment_targets(fixed) == {}
    # Without queries that name segments nothing is tuned.
    assert identity.segment_targets(spec(**declared)) == {}
    assert identity.segment_targets(spec(**declared, gate={"queries": {"s3": {"bucket": "queries"}}})) == {}


def test_writing_a_default_down_changes_nothing() -> None:
    written = hashes(source={"columns": {"id": "id", "vector": "vector"}}, index={"objective": {"recall": 0.96}})
    assert written == hashes()
    assert hashes(embedding={"metric": "Cosine"}, gate={"k": 10}) == hashes()
    assert hashes(index={"effort": "Normal"}) == hashes()
    assert spec(index={"effort": "Normal"}) == spec(), "nor is it an edit that waits for a build"


def test_data_and_build_number_are_part_of_the_digest() -> None:
    digests = {identity.digest(spec(), DATA), identity.digest(spec(), NEW_DATA), identity.digest(spec(), DATA, 1)}
    assert len(digests) == 3


def test_every_name_fits_into_a_label() -> None:
    index = "x" * NAME_LIMIT
    name = identity.revision_name(index, identity.digest(spec(), DATA))
    assert len(name) == NAME_LIMIT + 1 + 8
    key = f"{identity.build_hash(spec())}/17/gpu"
    names = (
        name,
        identity.build_job_name(name, key),
        identity.gate_job_name(name, key),
        identity.resolve_job_name(index, key),
    )
    assert max(map(len, names)) <= NAME_CHARACTERS
    assert len(set(names)) == len(names)


def test_another_attempt_is_another_job() -> None:
    assert identity.build_job_name("docs-1", "a/0/cpu") == identity.build_job_name("docs-1", "a/0/cpu")
    assert identity.build_job_name("docs-1", "a/0/cpu") != identity.build_job_name("docs-1", "a/1/cpu")
