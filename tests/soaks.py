"""A soak as a pass sees it: stable is loaded, the candidate has the traffic, its searchers tell what they counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from observations import HOUR, NOW, a_revision, loaded, seen, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_searcher.contract import Evidence, EvidenceBucket

OLD = spec()
NEW = spec(index={"factory": "HNSW32"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
SOAKING = a_revision(NEW, "Soaking", created=NOW - 60)
SOAKING = replace(
    SOAKING,
    status=SOAKING.status.model_copy(
        update={"rollout": SOAKING.status.rollout.model_copy(update={"prior": STABLE.name})}  # type: ignore[union-attr]
    ),
)
FIX = spec(index={"factory": "Flat"})
PROVEN = a_revision(FIX, "Validated", created=NOW - 30)
OUTGOING = replace(SOAKING, status=SOAKING.status.model_copy(update={"phase": "Outgoing"}))


def counts(
    view: RevisionView, *, errors: int = 0, at: float = NOW, since: float | None = None, named: str = ""
) -> tuple[PodEvidence, ...]:
    """What its two searchers answered at `at`: 1,000 requests each in every bucket since then, or of ten minutes.
    `named`: whom they say they are, if not `view`."""
    first = at - 600 if since is None else since
    latency = {188: 1000}
    buckets = tuple(
        EvidenceBucket(
            bucket=b,
            segment="other",
            requests=1000,
            failed_requests=errors,
            queries=1000,
            errors=errors,
            latency=latency,
        )
        for b in range(int(first // 5), int(at // 5))
    )
    names = [f"{view.name}-{number}" for number in range(2)]
    told = named or view.name
    return tuple(PodEvidence(n, Evidence(pod=n, revision=told, now=at, buckets=buckets), at) for n in names)


def soak(of: RevisionView = SOAKING, *, errors: int = 0, switched: float = NOW - 600, **changes: Any) -> Observation:
    """STABLE is loaded, `of` has had the traffic since `switched`."""
    rollout = of.status.rollout
    assert rollout is not None
    rollout = rollout.model_copy(update={"switched_at": to_text(switched), "prior": STABLE.name})
    view = replace(of, status=of.status.model_copy(update={"rollout": rollout}))
    evidence = {of.name: counts(of, errors=errors, since=switched)}
    return seen(NEW, STABLE, view, traffic=view, **{"evidence": evidence, **changes})


def leaving(of: VectorIndexSpec = FIX, fix: RevisionView = PROVEN) -> Observation:
    """STABLE is dead and unloaded; OUTGOING keeps the traffic until `fix`, which waits for no place, takes it."""
    dead = replace(STABLE, status=STABLE.status.model_copy(update={"unloaded_at": to_text(NOW - 60)}))
    obs = seen(of, dead, OUTGOING, fix, traffic=OUTGOING)
    return replace(obs, loaded={OUTGOING.name: loaded(OUTGOING)})
