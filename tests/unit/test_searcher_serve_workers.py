"""Several search processes are one searcher: the same answers and evidence, one lease, one end; and none lives without
the others."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from mapping import reader_of
from prometheus_client.parser import text_string_to_metric_families
from searcher_process import Searcher, started
from served import Client, Published, get, publish_all
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.serve import settings
from vectorindex_searcher.serve.workers.family import Family
from vectorindex_searcher.serve.workers.pod import Pod
from vectorindex_searcher.serve.workers.system import check_system

TOKENS = ("first-token-0123456789", "second-token-0123456789")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("good"), ef_search=300)


@contextlib.contextmanager
def pod(published: Published, processes: int = 2, **environment: str) -> Iterator[Searcher]:
    known = {"VECTORINDEX_PROCESSES": str(processes), "VECTORINDEX_GRACE_SECONDS": "0.05"}
    with started(published.task, **known | environment) as searcher:
        yield searcher


def children(pid: int) -> list[int]:
    """Oldest first: the front process, then the workers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until_gone(family: list[int]) -> None:
    """None of them is left. Who is all the same is ended, or its log would never end, and so this test."""
    try:
        until(lambda: not any(map(alive, family)))
    finally:
        for pid in filter(alive, family):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It hangs meanwhile; afterwards it goes on, or it would not end with its pod where the test fails."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Asking:
    """One connection of a user."""

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = headers or {}

    def __call__(self, document: dict[str, Any], path: str = "/v1/search") -> tuple[int, Any, str | None]:
        """Status, answer, and what it says of the connection."""
        self.connection.request("POST", path, orjson.dumps(document), self._headers)
        response = self.connection.getresponse()
        return response.status, orjson.loads(response.read()), response.getheader("Connection")

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def asking(port: int, count: int) -> Iterator[list[Asking]]:
    """So many connections, each of which had an answer."""
    made = [Asking(port) for _ in range(count)]
    try:
        for one in made:
            one.connection.connect()
        yield made
    finally:
        for one in made:
            one.close()


def queries(admin: int) -> int:
    return sum(bucket["queries"] for bucket in get(admin, "/v1/evidence")[1]["buckets"])


def metric(admin: int, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by its labels but the revision."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]
    return {tuple(v for k, v in sorted(s.labels.items()) if k != "revision"): s.value for s in samples}


def lease(admin: int, state: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
    connection.request("POST", "/v1/lease", orjson.dumps({"state": state, "ttlSeconds": 300}))
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("given", "processes", "threads"),
    [
        ({"PROCESSES": "3"}, 3, 3),
        ({"PROCESSES": "3", "SEARCH_THREADS": "6"}, 3, 6),
        ({"PROCESSES": "1", "SEARCH_THREADS": "6"}, 1, 6),
        ({"SEARCH_THREADS": "6"}, 1, 6),
        ({"PROCESSES": "0"}, 1, None),
        ({"PROCESSES": "1000"}, contract.MOST_PROCESSES, contract.MOST_PROCESSES),
        ({}, 1, None),
    ],
)
def test_each_process_searches_on_its_event_loop_unless_threads_are_said(
    given: dict[str, str], processes: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever cores the node has: with threads of their own, short searches would be slower than with one process."""
    monkeypatch.setattr(settings, "available_cores", lambda: 16)
    found = settings.Settings.from_environment({f"VECTORINDEX_{name}": value for name, value in given.items()})
    assert (found.processes, found.threads) == (processes, threads or 16)


def test_answers_are_those_of_one_process_and_connections_are_shared_evenly(published: Published) -> None:
    with pod(published, 1) as one, pod(published, 3) as three:
        documents = [{"vector": vector.tolist(), "k": 7, "include": ["metadata"]} for vector in published.vectors[:12]]
        with asking(one.port(), 1) as alone, asking(three.port(), 12) as many:
            for ask, document in zip(many, documents, strict=True):
                assert ask(document)[1]["results"] == alone[0](document)[1]["results"]
            workers = children(three.process.pid)[1:]
            assert len(workers) == 3
            held = [sockets(pid) for pid in workers]
            assert max(held) - min(held) <= 1, held
            assert metric(three.port("admin port open"), "vectorindex_connections") == {(): 12.0}


def sockets(pid: int) -> int:
    """TCP connections that a process holds."""
    inodes = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    established = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{fields[9]}]" in inodes for fields in established if fields[3] == "01")


def test_what_was_answered_is_evidence_at_once(published: Published) -> None:
    with pod(published, VECTORINDEX_COLUMNS_BEFORE='{"title": "s", "price": "f"}') as searcher:
        admin = searcher.port("admin port open")
        with asking(searcher.port(), 4) as users:
            for number in range(1, 41):
                status, _, _ = users[number % 4]({"vector": published.vectors[number].tolist(), "segment": "keyword"})
                assert status == 200
                assert queries(admin) == number
            assert users[0]({"vector": [1.0]})[0] == 422
            for user in users:
                assert user({"vector": published.vectors[0].tolist(), "filter": {"price": {"lt": 3}}})[0] == 400
        # Metrics are made once a second at most.
        counted = {("200", "keyword"): 40.0, ("422", "other"): 1.0, ("400", "other"): 4.0}
        until(lambda: metric(admin, "vectorindex_filters_lost_total") == {("keyword",): 0.0, ("other",): 4.0})
        until(lambda: metric(admin, "vectorindex_requests_total") == counted)
        until(lambda: metric(admin, "vectorindex_connections") == {(): 0.0})


def test_cpu_memory_and_files_are_those_of_all_processes(published: Published) -> None:
    document = {"vectors": published.vectors[:200].tolist(), "params": {"efSearch": 1000}}
    with started(published.task, descriptors=300, VECTORINDEX_PROCESSES="2") as searcher:
        admin, port = searcher.port("admin port open"), searcher.port()
        family = [searcher.process.pid, *children(searcher.process.pid)]
        assert max(map(own_bytes, family[1:])) < 24 << 20, "as test_mirrors.py counts in what the operator gives"
        with asking(port, 2) as users:
            for _ in range(5):
                assert [ask(document)[0] for ask in users] == [200, 200]
        spent = sum(time.clock_gettime((~pid << 3) | 2) for pid in family)
        until(lambda: metric(admin, "process_cpu_seconds_total")[()] > 0.9 * spent)
        one = int(Path(f"/proc/{family[0]}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert one <= metric(admin, "process_resident_memory_bytes")[()] < 3 * one
        opened = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in family)
        assert abs(metric(admin, "process_open_fds")[()] - opened) < 8, "connections come and go"
        assert metric(admin, "process_max_fds") == {(): 300.0 * len(family)}


def test_an_index_that_only_workers_have_read_is_memory_of_the_pod_and_once(tmp_path: Path) -> None:
    file = tmp_path / "index"
    file.touch()
    os.truncate(file, 256 << 20)
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(reader_of(file)) for _ in range(2)]
        samples = [one for family in Family(os.getpid(), lambda: pids).collect() for one in family.samples]
        mine = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    (found,) = [one.value for one in samples if one.name == "process_resident_memory_bytes"]
    assert 128 << 20 < found - mine < 300 << 20


def own_bytes(pid: int) -> int:
    """Memory that a process shares with no other: what it made, and what it wrote into of what it got."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


def test_a_draining_lease_closes_connections_of_every_process(published: Published) -> None:
    document = {"vector": published.vectors[0].tolist()}
    with pod(published) as searcher:
        admin, port = searcher.port("admin port open"), searcher.port()
        with asking(port, 4) as users:
            assert [ask(document)[2] for ask in users] == [None] * 4
            assert lease(admin, "Draining") == 200
            for ask in users:
                until(lambda ask=ask: ask(document)[2] == "close")
                # One that is old is closed as well, but not the new one that takes its place.
                assert [ask(document)[2] for _ in range(8)] == ["close"] * 8
            assert get(admin, "/readyz")[1] | {"message": ""} == {
                "ready": True,
                "reason": "Ready",
                "message": "",
                "lease": "Draining",
                "revision": "products-d1",
            }
            assert lease(admin, "Serving") == 200
            for ask in users:
                until(lambda ask=ask: ask(document)[2] is None)


def test_a_second_click_on_an_answer_is_known_whatever_connection_it_comes_by(published: Published) -> None:
    document = {"vector": published.vectors[0].tolist(), "segment": "keyword", "track": True}
    with pod(published) as searcher:
        admin = searcher.port("admin port open")
        with asking(searcher.port(), 4) as users:
            query = users[0](document)[1]["results"][0]["queryId"]
            told = [ask({"queryId": query, "rank": 2}, "/v1/feedback") for ask in users]
            assert [(status, answer.get("reason")) for status, answer, _ in told] == [
                (202, None),
                (202, "Duplicate"),
                (202, "Duplicate"),
                (202, "Duplicate"),
            ]
            assert users[1]({"queryId": "x", "rank": 2}, "/v1/feedback")[0] == 400
        (bucket,) = [one for one in get(admin, "/v1/evidence")[1]["buckets"] if one["segment"] == "keyword"]
        assert (bucket["tracked"], bucket["clicked"], bucket["clickGainSum"]) == (1, 1, 9)
        assert metric(admin, "vectorindex_feedback_total") == {("Counted",): 1.0, ("Duplicate",): 3.0}


def test_a_withdrawn_token_is_refused_by_every_process(published: Published, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("\n".join(TOKENS))
    document = {"vector": published.vectors[0].tolist(), "params": {"nprobe": 3}}
    with pod(published, VECTORINDEX_TOKEN_FILE=str(path)) as searcher:
        admin, port = searcher.port("admin port open"), searcher.port()
        users = [Asking(port, {"Authorization": f"Bearer {TOKENS[0]}"}) for _ in range(4)]
        assert [ask(document)[0] for ask in users] == [200] * 4
        until(lambda: metric(admin, "vectorindex_token_requests_total") == {("tokens",): 4.0, ("tokens#2",): 0.0})
        until(lambda: metric(admin, "vectorindex_ignored_params_total") == {("nprobe",): 4.0})
        path.write_text(TOKENS[1])
        for ask in users:
            until(lambda ask=ask: ask(document)[0] == 401)
            ask.close()


def ended(searcher: Searcher) -> int:
    return searcher.process.wait(60)


@pytest.mark.parametrize("victim", [1, 2], ids=["first worker", "last worker"])
def test_a_worker_that_dies_ends_the_pod_and_the_others_answer_what_they_owe(published: Published, victim: int) -> None:
    """As the death of a single process does: the restart is what tells of it."""
    document = {"vectors": published.vectors[:64].tolist(), "params": {"efSearch": 1000}}
    with pod(published) as searcher:
        port, admin = searcher.port(), searcher.port("admin port open")
        family = children(searcher.process.pid)
        with asking(port, 6) as users:
            answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
            threads = [threading.Thread(target=lambda ask=ask: answers.put(answered(ask, document))) for ask in users]
            for thread in threads:
                thread.start()
            # Each process answers one after the other, so the others of the one that answered first wait in it.
            found = [answers.get(timeout=60)]
            os.kill(family[victim], signal.SIGKILL)
            for thread in threads:
                thread.join()
            found += [answers.get(timeout=60) for _ in users[1:]]
        assert found.count(None) <= 3, "those of the process that died at most"
        assert ended(searcher) == 128 + signal.SIGKILL
        until_gone(family)
        for closed in (port, admin):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", closed)) != 0
        searcher.said_all.wait(60)
        said = [line["message"] for line in searcher.log if line["level"] == "error"]
        assert f"search process {victim - 1} ended with signal 9" in said


@pytest.mark.parametrize(
    ("module", "name"), [(os, "fork"), (os, "memfd_create"), (socket, "SCM_RIGHTS"), (sys, "platform")]
)
def test_where_the_system_lacks_something_the_start_says_what(
    published: Published, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Rather than in the middle of it, when the index is loaded."""
    check_system()
    if name == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.delattr(module, name)
    with pytest.raises(BadSpec) as caught:
        Pod(published.task, settings.Settings(processes=2))
    failure = caught.value.failure
    assert failure.field == contract.PROCESSES_ENV
    assert ("Linux" if name == "platform" else name) in failure.message


def answered(ask: Asking, document: dict[str, Any]) -> int | None:
    """The status; None where nobody is left to answer. Does not connect anew."""
    ask.connection.auto_open = 0
    try:
        return ask(document)[0]
    except (OSError, http.client.HTTPException):
        return None


def test_the_front_process_that_dies_ends_the_pod(published: Published) -> None:
    with pod(published) as searcher:
        searcher.port()
        family = children(searcher.process.pid)
        os.kill(family[0], signal.SIGKILL)
        assert ended(searcher) == 128 + signal.SIGKILL
        until_gone(family)


def test_nothing_is_left_of_a_pod_whose_first_process_was_killed(published: Published) -> None:
    with pod(published) as searcher:
        searcher.port()
        family = children(searcher.process.pid)
        assert len(family) == 3
        searcher.process.kill()
        until_gone(family)


def test_search_processes_end_when_nobody_leads_them(published: Published) -> None:
    with pod(published) as searcher:
        searcher.port()
        family = children(searcher.process.pid)
        os.kill(family[0], signal.SIGSTOP)  # so that it tells them nothing
        searcher.process.kill()
        os.kill(family[0], signal.SIGKILL)
        until_gone(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_is_one_to_the_first(published: Published, number: signal.Signals) -> None:
    """Ctrl-C at a terminal reaches all of them."""
    with pod(published) as searcher:
        searcher.port()
        for pid in (*children(searcher.process.pid), searcher.process.pid):
            os.kill(pid, number)
        assert ended(searcher) == 0
        searcher.said_all.wait(60)
        assert [line["unanswered"] for line in searcher.log if line["message"] == "drained"] == [0]
        assert [line for line in searcher.log if line["level"] == "error"] == []


def test_queries_under_way_when_the_pod_ends_are_answered_and_counted_out(published: Published) -> None:
    stop = threading.Event()
    with pod(published, VECTORINDEX_GRACE_SECONDS="0.5") as searcher:
        service = {"port": searcher.port()}
        many = orjson.dumps({"vectors": published.vectors[:50].tolist(), "params": {"efSearch": 800}})
        clients = [Client(service, many, stop) for _ in range(6)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        until(lambda: all(client.answered for client in clients))
        stop.set()
        searcher.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert ended(searcher) == 0
    assert [client.failures for client in clients] == [[]] * len(clients)


def test_a_process_that_hangs_fails_the_probes_and_gets_no_connection(published: Published) -> None:
    """One process that hangs would not answer them either."""
    with pod(published) as searcher:
        admin, port = searcher.port("admin port open"), searcher.port()
        with stopped(children(searcher.process.pid)[1]):
            until(lambda: get(admin, "/livez")[0] == 503)
            status, document = get(admin, "/readyz")
            assert (status, document["reason"]) == (503, "Stalled")
            assert "search process 0 does not answer" in document["message"]
            with asking(port, 4) as users:
                assert [ask({"vector": published.vectors[0].tolist()})[0] for ask in users] == [200] * 4
        until(lambda: get(admin, "/livez")[0] == 200)


def test_evidence_is_not_told_without_that_of_a_process_that_hangs(published: Published) -> None:
    """Nor does a single process that hangs tell any: an operator takes the pod for silent, not for sound."""
    with pod(published) as searcher:
        admin = searcher.port("admin port open")
        with asking(searcher.port(), 2) as users:
            assert [ask({"vector": published.vectors[0].tolist()})[0] for ask in users] == [200, 200]
            with stopped(children(searcher.process.pid)[1]):
                status, problem = get(admin, "/v1/evidence")
                assert (status, problem.get("type")) == (503, "urn:vectorindex:problem:Stalled")
                assert "search process 0" in problem["detail"]
            until(lambda: get(admin, "/v1/evidence")[0] == 200)
            assert queries(admin) == 2
            assert abs(get(admin, "/v1/evidence")[1]["now"] - time.time()) < 2.5


@pytest.mark.parametrize("name", ["HTTP", "ADMIN"])
def test_a_port_that_is_taken_ends_the_start_and_names_the_flag(
    published: Published, tmp_path: Path, name: str
) -> None:
    log = tmp_path / "termination-log"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = {f"VECTORINDEX_{name}_PORT": str(other.getsockname()[1]), "VECTORINDEX_TERMINATION_LOG": str(log)}
        with pod(published, **taken) as searcher:
            assert ended(searcher) == contract.ExitCode.BAD_SPEC
    failure = contract.Failure.model_validate_json(log.read_bytes())
    assert (failure.reason, failure.field) == ("PortUnavailable", f"--{name.lower()}-port")


def test_what_cannot_be_verified_never_serves(published: Published, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    task = published.task.model_copy(update={"manifest_sha256": "0" * 64})
    known = {"VECTORINDEX_PROCESSES": "2", "VECTORINDEX_TERMINATION_LOG": str(log)}
    with started(task, **known) as searcher:
        assert ended(searcher) == contract.ExitCode.BAD_DATA
    assert contract.Failure.model_validate_json(log.read_bytes()).reason == "ChecksumMismatch"
    assert "ready" not in [line["message"] for line in searcher.log]


OFTEN = """
from vectorindex_searcher.serve.evidence import live_recall
from vectorindex_searcher.cli import main
live_recall.ROUND_SECONDS = 0.2
raise SystemExit(main.main())
"""
"""A searcher that judges live recall without waiting for half a minute of queries."""


def test_live_recall_is_of_the_queries_of_every_process(published: Published) -> None:
    task = published.task.model_copy(update={"live_recall": True})
    with started(task, program=("-c", OFTEN), VECTORINDEX_PROCESSES="3") as searcher:
        admin = searcher.port("admin port open")
        with asking(searcher.port(), 6) as users:
            for number in range(60):
                document = {"vector": published.vectors[number].tolist(), "segment": "keyword", "k": 5}
                assert users[number % 6](document)[0] == 200
        until(lambda: live(admin)["liveQueries"] == 60)
        found = live(admin)
        assert found["liveOverallQueries"] == 60
        assert found["liveRecallSum"] > 59
        until(lambda: get(admin, "/v1/evidence")[1]["liveBefore"] * contract.BUCKET_SECONDS > time.time() - 20)
        until(lambda: metric(admin, "vectorindex_live_recall_count") == {("keyword",): 60.0, ("other",): 0.0})
        assert metric(admin, "vectorindex_live_recall_cpu_seconds_total")[()] > 0


def live(admin: int) -> dict[str, float]:
    """Counters of live recall, all buckets together."""
    names = ("liveQueries", "liveOverallQueries", "liveRecallSum")
    buckets = get(admin, "/v1/evidence")[1]["buckets"]
    return {name: sum(bucket.get(name, 0) for bucket in buckets) for name in names}


def test_ids_deleted_later_are_hidden_by_every_process(published: Published, tmp_path: Path) -> None:
    folder = tmp_path / "deleted"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": 1}\n')
    update = {"tombstones": contract.Location(folder=str(folder)), "tombstone_poll_seconds": 1}
    task = published.task.model_copy(update=update)
    documents = [{"vector": published.vectors[row].tolist()} for row in (1, 2, 3)]
    with started(task, VECTORINDEX_PROCESSES="2") as searcher:
        admin = searcher.port("admin port open")
        with asking(searcher.port(), 4) as users:

            def hidden(ask: Asking) -> list[bool]:
                found = [ask(document)[1]["results"][0]["ids"] for document in documents]
                return [row not in ids for row, ids in zip((1, 2, 3), found, strict=True)]

            assert [hidden(ask) for ask in users] == [[True, False, False]] * 4
            (folder / "b.jsonl").write_text('{"id": 2}\n')
            until(lambda: all(hidden(ask) == [True, True, False] for ask in users))
            until(lambda: metric(admin, "vectorindex_tombstones") == {(): 2.0})
            for path in folder.iterdir():
                path.unlink()
            until(lambda: not any(any(hidden(ask)) for ask in users))
