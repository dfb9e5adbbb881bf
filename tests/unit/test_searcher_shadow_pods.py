"""Shadowing between real pods: pairs over real indexes, hostile leases and queries, receivers that are broken."""

from __future__ import annotations

import itertools
import math
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pods_on_sockets import Handler, answering, dripping, received, server
from shadows import MASTER, SHADOW, UID, Data, Pod, engine_of, pod
from waiting import until

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import VECTORS_FILE
from vectorindex_searcher.contract import MIRROR_PATH, PAIRS_PATH, SHADOW_PATH, Metric, Target
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.shadow import judge, receiver, sender
from vectorindex_searcher.serve.shadow.mirror import QUEUE_BYTES, QUEUE_QUERIES, Mirror
from vectorindex_searcher.serve.traffic import Traffic

COUNT, DIMENSION, K = 600, 12, 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "SHADOW_WARMING", 0)
    # A machine that is busy makes no error of a query.
    monkeypatch.setattr(contract, "SHADOW_SECONDS", 60.0)
    monkeypatch.setattr(receiver, "PATIENCE_SECONDS", 50.0)
    monkeypatch.setattr(sender, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(judge, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(judge, "CPU_SHARE", 1.0)


def data(ids: type[int] | type[str] = int) -> Data:
    vectors = np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    return Data([ids(n) for n in range(COUNT)], vectors)


def queries(count: int = 40) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, DIMENSION)).astype(np.float32)


class Both:
    """Two revisions of which the second is judged."""

    def __init__(self, stable: Pod, candidate: Pod) -> None:
        self.stable, self.candidate = stable, candidate

    def ask(self, vectors: np.ndarray, **fields: Any) -> None:
        """Ask the one with the traffic, and wait until each query has become something at the other."""
        before = self._told()
        for vector in vectors:
            assert self.stable.search(vector=vector, **{"k": K} | fields)[0] == 200
        until(lambda: self._told() == before + len(vectors))
        until(self._judged)

    def _told(self) -> float:
        row = self.stable.row()
        return row["mirrored"]

    def _judged(self) -> bool:
        assert self.candidate.shadowing is not None
        waiting = self.candidate.shadowing._judge
        return waiting is None or waiting.idle


@pytest.fixture
def both(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Both]:
    """Parameters: what the stable one and the judged one are made of, and how."""
    before, after, options = request.param
    old, new = tmp_path / "a", tmp_path / "b"
    engines = engine_of(old, before, **options.get("old", {})), engine_of(new, after, **options.get("new", {}))
    with (
        pod("docs-old", engines[0], old / VECTORS_FILE) as stable,
        pod("docs-new", engines[1], new / VECTORS_FILE) as judged,
    ):
        assert stable.mirror([judged]) == 200
        yield Both(stable, judged)


def reordered(of: Data) -> Data:
    order = np.random.default_rng(3).permutation(len(of.ids))
    return Data([of.ids[n] for n in order], of.vectors[order])


def without(of: Data, share: float) -> Data:
    kept = np.random.default_rng(4).random(len(of.ids)) >= share
    return Data([one for one, stays in zip(of.ids, kept, strict=True) if stays], of.vectors[kept])


def wrong(of: Data, share: float) -> Data:
    """Another model made these."""
    some = np.random.default_rng(5).random(len(of.ids)) < share
    others = np.random.default_rng(6).standard_normal(of.vectors.shape).astype(np.float32)
    return Data(of.ids, np.where(some[:, None], others, of.vectors))


def metric(one: Metric, factory: str = "Flat") -> dict[str, dict[str, Any]]:
    return {"old": {"metric": one}, "new": {"metric": one, "factory": factory}}


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    "both",
    [(data(kind), reordered(data(kind)), metric(one)) for one in Metric for kind in (int, str)],
    ids=[f"{one.value}-{kind.__name__}" for one in Metric for kind in (int, str)],
    indirect=True,
)
def test_the_same_data_in_another_order_keeps_every_answer(both: Both) -> None:
    both.ask(queries())
    row = both.candidate.row()
    assert (row["pairs"], row["answers_judged"], row["kept"]) == (40, 40, 400)
    assert row["gone"] == row["changed"] == row["displaced"] == row["missed"] == row["void"] == 0
    assert row["c_sum"] == pytest.approx(row["s_sum"], rel=1e-5)
    assert row["cs_sum"] == pytest.approx(row["s_squares"], rel=1e-5)
    sent = both.stable.row()
    assert (sent["mirrored"], sent["unanswered"], sent["dropped"]) == (40, 0, 0)
    evidence = both.candidate.pairs()
    assert (evidence.judged, evidence.reference) == ("docs-new", "docs-old")
    assert both.stable.pairs().judged == ""
    assert {one.segment for one in evidence.rows} == {"", "other"}


@pytest.mark.parametrize("both", [(data(), wrong(data(), 0.1), metric(one)) for one in Metric], indirect=True)
def test_a_tenth_that_is_embedded_wrongly_is_seen_in_what_changed(both: Both) -> None:
    both.ask(queries())
    row = both.candidate.row()
    assert row["changed_sum"] / row["answers_judged"] == pytest.approx(0.1, abs=0.05)
    assert row["changed"] == pytest.approx(row["changed_sum"] * K)
    assert row["gone"] == row["missed"] == 0
    assert row["kept"] + row["changed"] + row["displaced"] == 400


@pytest.mark.parametrize("both", [(data(), without(data(), 0.2), {})], indirect=True)
def test_rows_that_are_not_there_any_more_are_gone_and_nobody_missed_them(both: Both) -> None:
    both.ask(queries())
    row = both.candidate.row()
    assert row["gone"] == pytest.approx(80, abs=30)
    assert row["changed"] == row["missed"] == row["displaced"] == 0
    assert row["gone"] + row["kept"] == 400


@pytest.mark.parametrize("both", [(without(data(), 0.5), data(), {})], indirect=True)
def test_what_new_rows_took_the_place_of_is_displaced(both: Both) -> None:
    both.ask(queries())
    row = both.candidate.row()
    assert row["displaced"] == pytest.approx(200, abs=60)
    assert row["kept"] + row["displaced"] == 400


@pytest.mark.parametrize("both", [(data(), data(), metric(Metric.COSINE, "IVF64,Flat"))], indirect=True)
def test_what_a_poor_search_does_not_find_is_missed(both: Both) -> None:
    both.ask(queries())
    row = both.candidate.row()
    recall = 0.0
    for vector in queries():
        exact = both.stable.engine.search(vector[None], K)[1][0]
        recall += np.isin(both.candidate.engine.search(vector[None], K)[1][0], exact).mean()
    assert recall / 40 < 0.7
    assert row["missed_sum"] / row["answers_judged"] == pytest.approx(1 - recall / 40, abs=1e-6)
    assert row["changed"] == row["gone"] == 0


@pytest.mark.parametrize("both", [(data(), data(), metric(Metric.COSINE, "PQ4x4"))], indirect=True)
def test_codes_that_tell_other_scores_change_no_answer(both: Both) -> None:
    """Told scores are a third off here; the exact ones are the same."""
    both.ask(queries())
    row = both.candidate.row()
    assert row["answers_judged"] == 40
    assert row["changed"] == 0
    assert row["missed"] > 0


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_zero_results_are_four_cells_and_each_has_its_own_bound(both: Both) -> None:
    some = queries(20)
    bound = float(np.median(both.stable.engine.search(some, 1)[0]))
    both.ask(some, minScore=bound)
    row = both.candidate.row()
    assert row["zero_both"] == 10
    assert row["zero_candidate_only"] == row["zero_stable_only"] == 0
    assert row["scored"] == 20


@pytest.mark.parametrize(
    "both",
    [(Data([*range(COUNT)], data().vectors, ["red", "blue"] * (COUNT // 2)), data(), {})],
    indirect=True,
)
def test_an_answer_that_the_filter_does_not_allow_any_more_is_gone(both: Both) -> None:
    """All rows are red at the new one."""
    both.ask(queries(10), filter={"colour": "blue"})
    row = both.candidate.row()
    assert (row["pairs"], row["gone"], row["kept"]) == (10, 100, 0)
    assert row["zero_candidate_only"] == 10
    both.ask(queries(10), filter={"colour": "red"})
    row = both.candidate.row()
    assert (row["gone"], row["kept"] + row["displaced"]) == (100, 100)


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_a_query_that_the_other_refuses_is_unanswered(both: Both) -> None:
    """The one with the traffic answers it, and after the switch its users would get an error."""
    original = both.candidate.shadowing._receiver._searches.find  # type: ignore[union-attr]

    def find(fields: dict[str, object], vector: np.ndarray, deadline: float) -> Any:
        if fields["k"] == 3:
            raise Problem(400, "InvalidFilter", "there is no such column")
        return original(fields, vector, deadline)

    both.candidate.shadowing._receiver._searches.find = find  # type: ignore[union-attr]
    both.ask(queries(5), k=3)
    both.ask(queries(5), k=4)
    assert (both.stable.row()["mirrored"], both.stable.row()["unanswered"]) == (10, 5)
    assert both.candidate.row()["pairs"] == 5


def _coloured() -> Data:
    return Data([*range(COUNT)], data().vectors, ["red", "blue"] * (COUNT // 2))


@pytest.mark.parametrize("both", [(_coloured(), _coloured(), {})], indirect=True)
def test_a_filter_is_evaluated_as_long_as_the_shadow_waits(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer, it would hold a search thread of the pod for a query that nobody asks any more."""
    deadlines: list[float] = []

    def matching(predicate: Any, deadline: float = math.inf) -> RowSet:
        deadlines.append(deadline - time.monotonic())
        raise TimeoutError

    monkeypatch.setattr(both.candidate.engine, "matching", matching)
    both.ask(queries(3), filter={"colour": "blue"})
    assert (both.stable.row()["unanswered"], len(deadlines)) == (3, 3)
    assert max(deadlines) <= receiver.PATIENCE_SECONDS


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_deleted_ids_that_differ_make_no_pair(both: Both) -> None:
    both.stable.deleted = "listing-2"
    both.ask(queries(5))
    assert (both.candidate.row()["other_deleted"], both.candidate.row()["pairs"]) == (5, 0)
    until(lambda: both.stable.looked_again and both.candidate.looked_again)
    both.candidate.deleted = "listing-2"
    hidden = RowSet.of_rows(np.arange(0, COUNT, 2), COUNT)
    for one in (both.stable, both.candidate):
        one.engine.hide(hidden)
    both.ask(queries(5))
    row = both.candidate.row()
    assert (row["pairs"], row["kept"], row["gone"]) == (5, 50, 0)


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_a_query_counts_once_in_a_shadow_and_again_in_the_next(both: Both) -> None:
    some = np.concatenate([queries(5)] * 4)
    both.ask(some)
    assert (both.candidate.row()["pairs"], both.candidate.row()["repeated"]) == (5, 15)
    assert both.stable.row()["mirrored"] == 20
    assert both.stable.mirror([both.candidate], shadow="docs-new@2") == 200
    assert both.stable.search(vector=queries(1)[0], k=K)[0] == 200
    until(lambda: both.candidate.pairs("docs-new@2").rows)
    assert both.candidate.pairs("docs-new@2").rows[0].pairs == 1
    assert both.candidate.pairs(SHADOW).rows == ()


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_the_first_queries_of_a_pod_warm_it_and_are_not_counted(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "SHADOW_WARMING", 7)
    both.ask(queries(10))
    assert (both.candidate.row()["warming"], both.candidate.row()["pairs"]) == (7, 3)
    both.ask(queries(10))  # those that warmed it are no repetition
    assert (both.candidate.row()["pairs"], both.candidate.row()["repeated"]) == (10, 3)


@pytest.mark.parametrize("both", [(data(), data(), {})], indirect=True)
def test_one_query_of_a_request_and_each_for_its_segment(both: Both) -> None:
    assert both.stable.search(vectors=queries(9), k=K, segment="rare")[0] == 200
    until(lambda: both.stable.row()["mirrored"])
    assert both.candidate.row()["pairs"] == both.candidate.row("rare")["pairs"] == 1
    assert both.stable.row("rare")["mirrored"] == 1


def test_without_the_vectors_pairs_are_counted_and_no_answer_is_judged(tmp_path: Path) -> None:
    """The one with the traffic needs them only where its index tells scores by codes."""
    codes = engine_of(tmp_path / "a", data(), factory="SQ8"), tmp_path / "a" / VECTORS_FILE
    whole = engine_of(tmp_path / "b", data()), tmp_path / "b" / VECTORS_FILE
    for (old, there), (new, here), judged in (
        ((codes[0], None), whole, 0),
        (codes, whole, 5),
        (codes, (whole[0], None), 0),
        ((whole[0], None), whole, 5),
        ((whole[0], None), codes, 5),
    ):
        with pod("docs-old", old, there) as stable, pod("docs-new", new, here) as candidate:
            assert stable.mirror([candidate]) == 200
            Both(stable, candidate).ask(queries(5))
            assert (candidate.row()["pairs"], candidate.row()["answers_judged"]) == (5, judged)
            assert candidate.row()["changed"] == 0


@pytest.mark.parametrize("both", [(data(), wrong(data(), 0.1), {})], indirect=True)
def test_metrics_are_the_same_counts(both: Both) -> None:
    both.ask(queries(10))
    assert both.stable.metrics is not None
    assert both.candidate.metrics is not None
    told = both.stable.metrics.exposition().decode()
    assert 'vectorindex_mirrored_queries_total{result="Answered",revision="docs-old"} 10.0' in told
    told, row = both.candidate.metrics.exposition().decode(), both.candidate.row()
    assert 'vectorindex_shadow_queries_total{result="Counted",revision="docs-new"} 10.0' in told
    assert f'vectorindex_shadow_answers_total{{result="Changed",revision="docs-new"}} {row["changed"]}' in told


@pytest.mark.parametrize("both", [(data(), wrong(data(), 0.1), {})], indirect=True)
def test_operator_and_searchers_understand_each_other(both: Both) -> None:
    """Both as they are, over real connections: the lease with its sealed key, and what is told on both sides."""
    name = contract.key_id(MASTER)
    old, new = (
        (
            Addressee(Target(UID, one.revision), one.revision, name),
            HttpSearchers(Signer(InternalKeys(MASTER)), admin_port=one.admin),
        )
        for one in (both.stable, both.candidate)
    )
    lease = contract.MirrorLease(
        revision=both.candidate.revision,
        addresses=("127.0.0.1",),
        port=both.candidate.admin,
        max_per_second=1000,
        shadow=SHADOW,
    )
    old[1].mirror(old[0], ["127.0.0.1"], new[0], lease).result()
    assert both.stable.shadowing is not None
    assert both.stable.shadowing._mirror is not None
    assert both.stable.shadowing._mirror.lease is not None
    assert both.stable.shadowing._mirror.lease.rates.per_second == 1000  # not the test's own
    both.ask(queries(20))
    (sent,), (judged,) = (
        operator.pairs(addressee, [("pod-1", "127.0.0.1")], SHADOW).result() for addressee, operator in (old, new)
    )
    assert (sent.problem, judged.problem) == ("", "")
    assert sent.counts is not None
    assert judged.counts is not None
    assert sum(sums.mirrored for _, sums in sent.counts[""]) == 20
    assert sum(sums.pairs for _, sums in judged.counts[""]) == 20
    assert sum(sums.changed_sum for _, sums in judged.counts[""]) == pytest.approx(both.candidate.row()["changed_sum"])


# ---------------------------------------------------------------- leases


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Pod]:
    with pod("docs-old", engine_of(tmp_path / "a", data()), tmp_path / "a" / VECTORS_FILE) as one:
        yield one


def test_without_a_lease_nothing_is_put_aside_and_it_runs_out_by_itself(alone: Pod) -> None:
    assert alone.shadowing is not None
    mirror = alone.shadowing._mirror
    assert isinstance(mirror, Mirror)
    alone.search(vector=queries(1)[0])
    assert not mirror.queue
    assert mirror.counts is None
    assert alone.mirror(1, ttlSeconds=0.2) == 200
    assert mirror.lease is not None
    until(lambda: mirror.lease is None)
    alone.search(vector=queries(1)[0])
    assert alone.pairs().rows == ()
    assert alone.mirror(1) == 200
    assert alone.mirror(1, rate=0) == 200
    assert mirror.lease is None


def test_a_lease_that_was_heard_and_is_repeated_is_refused(alone: Pod) -> None:
    now = time.time()
    assert alone.mirror(1, at=now - 100) == 200
    assert alone.mirror(1, rate=0, at=now - 50) == 200
    assert alone.mirror(1, at=now - 100) == 409
    assert alone.shadowing is not None
    assert alone.shadowing._mirror is not None
    assert alone.shadowing._mirror.lease is None
    assert alone.mirror(1, at=now - 50) == 200  # of the same second


@pytest.mark.parametrize(
    "more",
    [
        {"addresses": ["metadata.internal"]}, {"addresses": ["127.0.0.1/x"]}, {"addresses": ["10.0.0.1"] * 257},
        {"addresses": "10.0.0.1"}, {"ttlSeconds": 301}, {"ttlSeconds": 0}, {"maxPerSecond": -1},
        {"maxPerSecond": 1e300}, {"sealedKey": "0" * 95}, {"sealedKey": ""}, {"shadow": ""},
        {"shadow": "a b"}, {"port": 0}, {"unknown": 1},
    ],
)  # fmt: skip
def test_a_lease_that_says_nonsense_is_refused(alone: Pod, more: dict[str, Any]) -> None:
    assert alone.mirror(1, **more) == 400
    assert alone.shadowing is not None
    assert alone.shadowing._mirror is not None
    assert alone.shadowing._mirror.lease is None


def test_each_path_takes_its_own_key_and_no_other(alone: Pod) -> None:
    shadow_key = contract.shadow_key(alone.key)
    for method, path in (("POST", MIRROR_PATH), ("GET", f"{PAIRS_PATH}?shadow=a"), ("POST", "/v1/lease")):
        for key in (shadow_key, contract.live_key(alone.key), "0" * 64):
            assert alone.ask(method, path, b"{}" if method == "POST" else b"", key=key)[0] == 403
        assert alone.ask(method, path, key="")[0] == 401
    for key in (alone.key, contract.live_key(alone.key), "0" * 64):
        assert alone.ask("POST", SHADOW_PATH, b"x", key=key)[0] == 403
    assert alone.ask("POST", SHADOW_PATH, b"x", key="")[0] == 401
    assert alone.ask("POST", SHADOW_PATH, b"x", key=shadow_key)[0] == 400
    assert alone.ask("POST", SHADOW_PATH, b"x", key=shadow_key, to="docs-other")[0] == 421
    assert alone.ask("POST", SHADOW_PATH, b"x", key=shadow_key, at=time.time() - 400)[0] == 403


def test_only_queries_of_a_shadow_may_be_long(alone: Pod) -> None:
    assert alone.ask("POST", MIRROR_PATH, b" " * (65 << 10))[0] == 413
    key = contract.shadow_key(alone.key)
    assert alone.ask("POST", SHADOW_PATH, b" " * (65 << 10), key=key)[0] == 400
    assert alone.ask("POST", SHADOW_PATH, b" " * (contract.SHADOW_BYTES + 1), key=key)[0] == 413


@pytest.mark.parametrize("query", ["", "?shadow=", "?shadow=a&shadow=b", "?shadow=a&x=1", "?shadow=a%20b", "?since=1"])
def test_pairs_are_asked_for_by_the_id_of_a_shadow(alone: Pod, query: str) -> None:
    assert alone.ask("GET", PAIRS_PATH + query)[0] == 400


def test_without_a_master_key_no_query_is_sent(tmp_path: Path) -> None:
    engine, vectors = engine_of(tmp_path / "a", data()), tmp_path / "a" / VECTORS_FILE
    with pod("docs-old", engine, vectors, keys=False) as stable, pod("docs-new", engine, vectors, keys=False) as judged:
        assert stable.mirror([judged]) == 403
        assert judged.ask("POST", SHADOW_PATH, b"x", key="")[0] == 403


def test_a_pod_that_takes_part_in_no_shadow_has_no_such_paths() -> None:
    task = contract.ServeTask(
        identity=contract.Identity(name="docs"), revision="r", digest="d", manifest_sha256="",
        artifacts=contract.Location(folder="/nowhere"),
    )  # fmt: skip
    key, me = "k" * 64, contract.Target(task.identity.uid, "r")
    app = AdminApp(task, Settings(internal_key=key), Traffic(), EvidenceRing(()), lambda: None, str)  # type: ignore[arg-type, return-value]
    keys = {SHADOW_PATH: contract.shadow_key(key)}
    for method, path in (("POST", MIRROR_PATH), ("POST", SHADOW_PATH), ("GET", PAIRS_PATH)):
        signed = contract.sign(keys.get(path, key), contract.InternalRequest(method, path), me, time.time())
        headers = {name.lower().encode(): value.encode() for name, value in signed.items()}
        with pytest.raises(Problem) as caught:
            app.handle(Request(method.encode(), path.encode(), headers, b"", keep_alive=True, completed=0.0))
        assert (caught.value.status, caught.value.kind) == (404, "NotFound")


# ---------------------------------------------------------------- receivers that are broken


def resetting(connection: socket.socket, _head: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection: socket.socket, _head: bytes) -> None:
    while connection.recv(1 << 20):
        pass
    time.sleep(60)


def endless_head(connection: socket.socket, _head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: " + b"y" * 4000 + b"\r\n")


BROKEN: dict[str, Handler] = {
    "resets": resetting,
    "hangs up": lambda _connection, _head: None,
    "never ends its head": endless_head,
    "promises gigabytes": answering(b"", status="200 OK\r\nContent-Length: 9000000000\r\nX: y"),
    "says no length": lambda connection, _head: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
    "speaks no HTTP": lambda connection, _head: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "fails": answering(b"{}", status="500 Internal Server Error"),
    "is overloaded": answering(b"{}", status="503 Service Unavailable"),
    "answers no JSON": answering(b"nonsense"),
    "answers another JSON": answering(b"[1]"),
    "names queries that were not sent": answering(b'{"counted": 0, "unanswered": [77]}'),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_receiver_that_breaks_is_one_that_did_not_answer(alone: Pod, how: str) -> None:
    with server(BROKEN[how]) as port:
        assert alone.mirror(port) == 200
        for vector in queries(3):
            assert alone.search(vector=vector)[0] == 200
        row = until(lambda: (row := alone.row())["mirrored"] == 3 and row)
        assert (row["unanswered"], row["unreached"]) == (3, 0)


def test_a_receiver_to_which_there_is_no_connection_is_told_from_one_that_breaks(alone: Pod) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    assert alone.mirror(port) == 200
    alone.search(vector=queries(1)[0])
    row = until(lambda: (row := alone.row())["mirrored"] and row)
    assert (row["unanswered"], row["unreached"]) == (1, 1)


@pytest.mark.parametrize("how", [silent, dripping()])
def test_a_receiver_that_takes_its_time_is_left_alone(
    alone: Pod, how: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "SHADOW_SECONDS", 0.3)
    with server(how) as port:
        assert alone.mirror(port) == 200
        alone.search(vector=queries(1)[0])
        row = until(lambda: (row := alone.row())["mirrored"] and row)
        assert row["unanswered"] == 1


@pytest.mark.parametrize("status", ["404 Not Found", "421 Misdirected Request", "403 Forbidden", "409 Conflict"])
def test_whoever_says_that_it_is_not_the_one_is_not_judged(alone: Pod, status: str) -> None:
    with server(answering(b"{}", status=status)) as port:
        assert alone.mirror(port) == 200
        alone.search(vector=queries(1)[0])
        row = until(lambda: (row := alone.row("other"))["dropped"] and row)
        assert (row["mirrored"], row["unanswered"]) == (0, 0)


class Judged:
    """Answers as a searcher does, request after request on a connection. `seconds`: what the first one takes; `last`:
    it closes after each answer, and says so, or not (None: it does not)."""

    def __init__(self, last: bool | None = None, seconds: float = 0.0) -> None:
        self._last, self._seconds = last, seconds
        self.connections = self.ended = 0

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        self.connections += 1
        said = b"Connection: close\r\n" if self._last else b""
        try:
            while True:
                head, _, body = head.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(1 << 20)
                time.sleep(self._seconds)
                self._seconds = 0.0
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + said + b"Content-Length: 2\r\n\r\n{}")
                if self._last is not None:
                    return
                head = received(connection, b"", b"\r\n\r\n")
        finally:
            self.ended += 1


def sent(alone: Pod, count: int, judged: Judged) -> None:
    """So many queries, each in a request of its own."""
    for number, vector in enumerate(queries(count)):
        assert alone.search(vector=vector)[0] == 200
        until(lambda number=number: alone.row()["mirrored"] == number + 1)
        until(lambda: judged.ended == judged.connections or judged._last is None)
        time.sleep(0.02)  # for the news to arrive


@pytest.mark.parametrize("last", [None, True, False], ids=["keeps it", "says that it closes", "closes"])
def test_requests_go_over_one_connection_as_long_as_it_is_kept(alone: Pod, last: bool | None) -> None:
    judged = Judged(last)
    with server(judged) as port:
        assert alone.mirror(port) == 200
        sent(alone, 3, judged)
        assert judged.connections == (1 if last is None else 3)
        assert alone.row()["unanswered"] == 0
        assert alone.mirror(port, rate=0) == 200
        until(lambda: judged.ended == judged.connections)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(
    alone: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "SHADOW_SECONDS", 0.3)
    judged = Judged(seconds=0.6)
    with server(judged) as port:
        assert alone.mirror(port) == 200
        alone.search(vector=queries(1)[0])
        until(lambda: alone.row()["unanswered"] == 1)
        monkeypatch.setattr(contract, "SHADOW_SECONDS", 60.0)
        alone.search(vector=queries(2)[1])
        until(lambda: alone.row()["mirrored"] == 2)
        assert judged.connections == 2


def test_a_receiver_that_never_answers_delays_no_user_and_what_waits_is_bounded(
    alone: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent at all meanwhile, and users are answered as ever. What finds no room is counted."""
    monkeypatch.setattr(sender, "WAITING", 10)
    waiting = threading.Event()

    def never(connection: socket.socket, head: bytes) -> None:
        received(connection, head, b"\r\n\r\n")
        waiting.wait(60)

    with server(never) as port:
        assert alone.mirror(port, ttlSeconds=300) == 200
        assert alone.shadowing is not None
        sending = alone.shadowing._sender
        assert sending is not None

        def waits() -> int:
            return sum(map(len, sending._waiting.values()))

        numbers = itertools.count()
        until(lambda: alone.search(vector=queries(1)[0] + next(numbers), k=1)[0] == 200 and waits() == 10)
        for _ in range(20):
            assert alone.search(vector=queries(1)[0] + next(numbers), k=1)[0] == 200
        until(lambda: alone.row("other")["dropped"] >= 20)
        assert waits() == 10
        assert len(sending._sending) == 1
        assert alone.row()["mirrored"] == 0
        waiting.set()


def test_where_the_sender_does_not_come_to_it_the_queue_drops(alone: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender.MirrorSender, "send_some", lambda _self: None)
    assert alone.mirror(1) == 200
    assert alone.shadowing is not None
    mirror = alone.shadowing._mirror
    assert mirror is not None
    assert mirror._room == QUEUE_QUERIES
    mirror._room = 10
    for _ in range(30):
        assert alone.search(vector=queries(1)[0], k=1)[0] == 200
    assert len(mirror.queue) == 10
    assert alone.row("other")["dropped"] == 20


def test_a_queue_of_long_vectors_is_shorter() -> None:
    assert Mirror((), 65536)._room * 4 * 65536 <= QUEUE_BYTES


# ---------------------------------------------------------------- users of the one that is judged


class Gated:
    """An engine whose searches wait for a gate."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.gate.set()
        self.searches = 0

    def search(self, *arguments: Any) -> Any:
        self.searches += 1
        assert self.gate.wait(60)
        return self._engine.search(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def test_while_users_wait_no_query_of_a_shadow_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PATIENCE_SECONDS", 0.3)
    engine = engine_of(tmp_path / "a", data())
    gated = Gated(engine)
    with pod("docs-old", engine, None) as stable, pod("docs-new", gated, None, threads=1) as judged:
        assert stable.mirror([judged]) == 200
        gated.gate.clear()
        users = [threading.Thread(target=judged.search, kwargs={"vectors": queries(2), "k": n + 1}) for n in range(3)]
        for user in users:
            user.start()
        assert judged.pool is not None
        until(lambda: judged.pool.waiting == 4)  # type: ignore[union-attr]
        assert stable.search(vector=queries(1)[0])[0] == 200
        until(lambda: stable.row()["unanswered"] == 1)
        assert gated.searches == 1
        assert judged.pool.waiting == 4, "it stood before users that come later"
        gated.gate.set()
        for user in users:
            user.join(60)
        until(lambda: stable.search(vector=queries(1)[0])[0] == 200 and judged.row()["pairs"] == 1)


def test_a_shadow_that_is_over_does_not_come_back(tmp_path: Path) -> None:
    """A pod of the sender's that has not heard of the next one yet."""
    engine = engine_of(tmp_path / "a", data())
    with (
        pod("docs-old", engine, None) as early,
        pod("docs-old", engine, None) as late,
        pod("docs-new", engine, None) as judged,
    ):
        for sending, shadow in ((early, "docs-new@1"), (late, "docs-new@2"), (early, "docs-new@1")):
            assert sending.mirror([judged], shadow=shadow) == 200
            sending.search(vector=queries(1)[0])
            until(lambda sending=sending, shadow=shadow: sending.pairs(shadow).rows)
        assert [row.pairs for row in judged.pairs("docs-new@2").rows if row.segment == ""] == [1]
        until(lambda: any(row.dropped for row in early.pairs("docs-new@1").rows))
