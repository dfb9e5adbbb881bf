"""Both planes of a shadow over real sockets: what the operator asks, real searchers, and the verdict on their pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from shadows import MASTER, UID, Data, Pod, engine_of, pod
from waiting import until

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.judging.pair_sums import add_pairs
from vectorindex_operator.core.judging.rules import Rule
from vectorindex_operator.core.judging.same_moment import SameMoment
from vectorindex_operator.core.judging.shadow import Side, compared, judge_shadow, same_moment, worst_in_shadow
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


def lease(sender: Pod, receiver: Pod, rate: float, *addresses: str, sender_judged: bool | None = None) -> None:
    sent = MirrorLease(
        revision=receiver.revision,
        addresses=addresses,
        port=receiver.admin,
        max_per_second=rate,
        shadow=SHADOW,
        sender_judged=sender_judged,
    )
    searchers(sender).mirror(to(sender), ["127.0.0.1"], to(receiver), sent).result(60)


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


def test_after_the_switch_who_sends_says_whom_it_is_compared_with_and_who_takes_no_lease_says_nothing(
    both: tuple[Pod, Pod],
) -> None:
    prior, serving = both
    asked = {"revision": prior.revision, "addresses": [], "maxPerSecond": 1, "shadow": SHADOW, "notKnown": True}
    assert serving.ask("POST", contract.MIRROR_PATH, orjson.dumps(asked))[0] == 400, "as an image of before answers"
    refuses = side(serving).pods[0]
    assert (refuses.counts, refuses.reference) == ({}, "")
    lease(serving, prior, 1e5, "127.0.0.1", sender_judged=True)
    sends = side(serving).pods[0]
    assert (sends.counts, sends.reference) == ({}, prior.revision), "before a user has asked anything"

    queries = np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    for vector in queries[:40]:
        assert serving.search(vector=vector, k=1)[0] == 200
    until(lambda: compared(side(prior)) == 40)
    whole = same_moment(serving.revision, side(serving), side(prior))
    assert whole.sent is not None
    assert whole.told is not None
    told = add_pairs(sums for _, sums in whole.told["other"])
    assert (told.pairs, told.zero_candidate_only, told.zero_stable_only) == (40, 10, 0)
    half = Side((*side(serving).pods, refuses), 2)
    assert same_moment(serving.revision, half, side(prior)) == SameMoment(None, None)
