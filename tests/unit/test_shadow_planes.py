"""Both planes of a shadow over real sockets: what the operator asks, real searchers, and the verdict on their pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shadows import MASTER, UID, Data, Pod, engine_of, pod
from waiting import until

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.judging.rules import Rule
from vectorindex_operator.core.judging.shadow import Side, compared, judge_shadow, worst_in_shadow
from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import VECTORS_FILE
from vectorindex_searcher.contract import MirrorLease, Target, key_id
from vectorindex_searcher.serve.shadow import judge, sender

SHADOW = "docs-new-1800000000"
COUNT, DIMENSION = 300, 8


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "SHADOW_WARMING", 0)
    monkeypatch.setattr(sender, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(judge, "_WAIT_SECONDS", 0.01)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Pod, Pod]]:
    """Stable, and a candidate with a tenth of the data: for most queries no hit of it is good enough."""
    vectors = np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    whole, part = Data(list(range(COUNT)), vectors), Data(list(range(COUNT // 10)), vectors[: COUNT // 10])
    old, new = engine_of(tmp_path / "old", whole), engine_of(tmp_path / "new", part)
    with (
        pod("docs-old", old, tmp_path / "old" / VECTORS_FILE, min_score=0.99) as stable,
        pod("docs-new", new, tmp_path / "new" / VECTORS_FILE, min_score=0.99) as candidate,
    ):
        yield stable, candidate


def to(one: Pod) -> Addressee:
    return Addressee(Target(UID, one.revision), one.revision, key_id(MASTER))


def searchers(one: Pod) -> HttpSearchers:
    return HttpSearchers(Signer(InternalKeys(MASTER)), admin_port=one.admin)


def side(one: Pod) -> Side:
    """What its pod tells the operator."""
    told = searchers(one).pairs(to(one), [("pod-1", "127.0.0.1")], SHADOW).result(60)
    assert [pod.problem for pod in told] == [""]
    return Side(told, 1)


def mirrored(stable: Pod) -> int:
    return sum(sums.mirrored for _, sums in side(stable).counts().get("other", ()))


def lease(stable: Pod, candidate: Pod, rate: float, *addresses: str) -> None:
    sent = MirrorLease(
        revision=candidate.revision, addresses=addresses, port=candidate.admin, max_per_second=rate, shadow=SHADOW
    )
    searchers(stable).mirror(to(stable), ["127.0.0.1"], to(candidate), sent).result(60)


def test_what_the_operator_asks_for_is_done_and_what_it_hears_is_judged(both: tuple[Pod, Pod]) -> None:
    stable, candidate = both
    lease(stable, candidate, 1e5, "127.0.0.1")
    queries = np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    for vector in queries[:40]:
        assert stable.search(vector=vector, k=1)[0] == 200
    until(lambda: compared(side(candidate)) == 40)
    rules = [Rule("zero", "ZeroResultRate", max=0.05, min_samples=10), Rule("errors", "ErrorRate", max=0.02)]
    told, unanswered, zero, errors = judge_shadow(
        rules, side(candidate), side(stable), false_trip_budget=0.01, min_queries=10
    )
    assert (told.verdict, told.reason) == ("Pass", "Told")
    assert (zero.value, zero.baseline_value, errors.value, unanswered.value) == (0.25, 0.0, 0.0, 0.0)
    assert worst_in_shadow((told, unanswered, zero, errors)) != "Pass"
    # The end of it: an empty lease.
    lease(stable, candidate, 0.0)
    assert stable.search(vector=queries[41], k=1)[0] == 200
    assert mirrored(stable) == 40
