"""After the switch: who has the traffic sends queries to who had it before, and is judged by what that one answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from shadows import Data, Pod, engine_of, pod
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import VECTORS_FILE
from vectorindex_searcher.contract import Metric, MirrorLease
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.shadow import judge, packer, receiver, sender
from vectorindex_searcher.serve.shadow.wire import Packed, decode, join

COUNT, DIMENSION, ASKED = 400, 8, 40


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that is busy makes no error of a query.
    monkeypatch.setattr(contract, "SHADOW_SECONDS", 60.0)
    monkeypatch.setattr(receiver, "PATIENCE_SECONDS", 50.0)
    monkeypatch.setattr(sender, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(judge, "_WAIT_SECONDS", 0.01)


VECTORS = np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)
WHOLE, PART = Data(list(range(COUNT)), VECTORS), Data(list(range(10)), VECTORS[:10])


@pytest.fixture
def both(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Pod, Pod]]:
    """The prior with all data, and the one with the traffic, which lost all but ten rows. Parameter: the metric, and
    how the index of the latter is made."""
    metric, factory = request.param
    old, new = engine_of(tmp_path / "old", WHOLE, metric), engine_of(tmp_path / "new", PART, metric, factory)
    least = -1e-3 if metric is Metric.L2 else 0.999
    with (
        pod("docs-old", old, None, min_score=least) as prior,
        pod("docs-new", new, tmp_path / "new" / VECTORS_FILE, min_score=least) as serving,
    ):
        assert serving.mirror([prior], senderJudged=True) == 200
        yield prior, serving


def ask(serving: Pod) -> None:
    """Of each query a row of the prior is the answer."""
    for vector in VECTORS[:ASKED]:
        assert serving.search(vector=vector, k=3)[0] == 200
    until(lambda: serving.row()["mirrored"] == ASKED)


@pytest.mark.parametrize("both", [(Metric.COSINE, "Flat"), (Metric.L2, "Flat")], indirect=True)
def test_who_sends_is_judged_and_who_answers_again_is_the_reference(both: tuple[Pod, Pod]) -> None:
    prior, serving = both
    ask(serving)
    evidence, row = prior.pairs(), prior.row()
    assert (evidence.judged, evidence.reference) == ("docs-new", "docs-old")
    assert (serving.pairs().judged, serving.pairs().reference) == ("", "docs-old")
    assert (row["pairs"], row["zero_candidate_only"], row["zero_stable_only"]) == (ASKED, ASKED - 10, 0)
    mine, its = (one.engine.search(VECTORS[:ASKED], 1)[0][:, 0].astype(float) for one in (serving, prior))
    wanted = {
        "scored": ASKED, "c_sum": mine.sum(), "s_sum": its.sum(), "abs_s_sum": abs(its).sum(),
        "c_squares": (mine**2).sum(), "s_squares": (its**2).sum(), "cs_sum": (mine * its).sum(),
        "s_abs_s_sum": (its * abs(its)).sum(), "c_abs_s_sum": (mine * abs(its)).sum(),
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("both", [(Metric.COSINE, "Flat")], indirect=True)
def test_the_prior_is_warm_and_its_answers_are_not_judged(both: tuple[Pod, Pod]) -> None:
    prior, serving = both
    ask(serving)
    row = prior.row()
    assert contract.SHADOW_WARMING > ASKED
    assert (row["warming"], row["answers_judged"]) == (0, 0)
    assert prior.shadowing is not None
    assert prior.shadowing._judge is not None
    assert prior.shadowing._judge.idle


@pytest.mark.parametrize("both", [(Metric.COSINE, "SQ8")], indirect=True)
def test_nobody_reads_vectors_for_it(both: tuple[Pod, Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has users would, where its index holds codes, for answers that are not compared."""

    def refused(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(packer.Packer, "exact_scores", refused)
    prior, serving = both
    ask(serving)
    assert prior.row()["pairs"] == ASKED
    assert serving.shadowing is not None
    mirror = serving.shadowing._mirror
    assert mirror is not None
    monkeypatch.setattr(sender.MirrorSender, "send_some", lambda _self: None)
    assert serving.search(vector=VECTORS[0], k=3)[0] == 200
    until(lambda: len(mirror.queue) == 1)
    assert len(mirror.queue[0].rows) == 8, "no more than the first answer is put aside"


@pytest.mark.parametrize("both", [(Metric.COSINE, "Flat")], indirect=True)
def test_what_the_prior_refuses_is_no_pair(both: tuple[Pod, Pod]) -> None:
    """A filter by a column that it does not have, an overload: nobody is to blame."""
    prior, serving = both

    def refuse(*_: Any) -> Any:
        raise Problem(400, "InvalidFilter", "there is no such column")

    assert prior.shadowing is not None
    assert prior.shadowing._receiver is not None
    prior.shadowing._receiver._searches.find = refuse  # type: ignore[method-assign]
    ask(serving)
    assert (serving.row()["unanswered"], prior.row()["pairs"]) == (ASKED, 0)


@pytest.mark.parametrize("both", [(Metric.COSINE, "Flat")], indirect=True)
def test_pairs_of_a_shadow_before_are_not_among_them(both: tuple[Pod, Pod]) -> None:
    """The prior's own queries to the other one, and what of them comes late."""
    prior, serving = both
    assert prior.mirror([serving], shadow="docs-new-1") == 200
    assert prior.search(vector=VECTORS[0], k=3)[0] == 200
    until(lambda: serving.pairs("docs-new-1").rows)
    ask(serving)
    before, after = serving.pairs("docs-new-1"), prior.pairs()
    assert (before.judged, before.reference) == ("docs-new", "docs-old")
    assert sum(row.pairs + row.warming for row in before.rows if not row.segment) == 1
    assert sum(row.pairs for row in after.rows if not row.segment) == ASKED


def test_images_of_before_are_told_nothing_of_it_in_a_shadow() -> None:
    lease = MirrorLease(revision="docs-new", addresses=(), max_per_second=1.0, shadow="docs-new-1")
    assert "senderJudged" not in lease.wire()
    assert lease.model_copy(update={"sender_judged": True}).wire()["senderJudged"] is True
    asked = {"segment": "other", "k": 1, "seconds": 0.1, "overall": True, "hits": 0, "answers": 0}
    one = Packed(orjson.dumps(asked), VECTORS[0].tobytes(), bytes(16), b"", b"", b"")
    for turned in (False, True):
        body = join("docs-new-1", "docs-old", DIMENSION, [one], text=False, sender_judged=turned)
        assert ("senderJudged" in orjson.loads(body.partition(b"\n")[0])) is turned
        assert decode(body, Metric.COSINE).sender_judged is turned
