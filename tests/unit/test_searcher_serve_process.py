"""A searcher from start to end: it proves itself or refuses, and a rolling restart under load loses no query."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop
from searcher_process import Searcher, started
from served import COUNT, IDENTITY, Client, Published, get, publish_all
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import CANARY_FILE, Layout
from vectorindex_searcher.artifact.manifest import describe_file, encode, load_manifest
from vectorindex_searcher.cli import main as command_line
from vectorindex_searcher.errors import BadData, BadSpec, TaskError
from vectorindex_searcher.index import huge_pages
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.proof.canary import read_canary, write_canary
from vectorindex_searcher.proof.report import Report
from vectorindex_searcher.serve import load
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.server import Server
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.storage import cache as caches
from vectorindex_searcher.storage.cache import NodeCache
from vectorindex_searcher.storage.store import Role, open_store

LOCAL = Settings(host="127.0.0.1", http_port=0, admin_port=0, grace_seconds=0.05)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("good"), ef_search=300)


def copied(published: Published, root: Path) -> Published:
    """The same store in another place, without a cache."""
    shutil.copytree(published.root / "store", root / "store")
    artifacts = contract.Location(folder=str(root / "store"))
    task = published.task.model_copy(update={"artifacts": artifacts, "cache_dir": str(root / "cache")})
    base = root / "store" / "local" / "products" / "d1"
    return replace(published, root=root, task=task, artifact=base / "a1", reports=base / "reports" / "g1")


# ---------------------------------------------------------------- refusals


def flip(path: Path, position: int = -40) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def refused(task: contract.ServeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, contract.Failure]:
    """Run a searcher that must refuse; its exit code and termination message."""
    log = tmp_path / "termination-log"
    for name, value in (("HOST", "127.0.0.1"), ("HTTP_PORT", "0"), ("ADMIN_PORT", "0"), ("TERMINATION_LOG", str(log))):
        monkeypatch.setenv(f"VECTORINDEX_{name}", value)
    monkeypatch.setenv(contract.TASK_ENV, task.model_dump_json(by_alias=True))
    monkeypatch.setattr(command_line, "configure_logging", lambda **_: None)
    # Should it serve after all, it is ended, and the test fails by its exit code instead of hanging.
    watchdog = threading.Timer(120, os.kill, (os.getpid(), signal.SIGTERM))
    watchdog.start()
    try:
        code = command_line.main(["serve"])
    finally:
        watchdog.cancel()
    assert code != 0, "it served"
    return code, contract.Failure.model_validate_json(log.read_bytes())


@pytest.mark.parametrize(
    ("damage", "code", "reason", "named"),
    [
        (lambda p: flip(p.artifact / "index.faiss"), 65, "ChecksumMismatch", "index.faiss"),
        (lambda p: flip(p.artifact / "ids.arrow"), 65, "ChecksumMismatch", "ids.arrow"),
        (lambda p: flip(p.artifact / "metadata.arrow"), 65, "ChecksumMismatch", "metadata.arrow"),
        (lambda p: flip(p.artifact.parent / "manifest.json", -2), 65, "ChecksumMismatch", "manifest.json"),
        (lambda p: flip(p.reports / "report.json", -2), 65, "ChecksumMismatch", "report.json"),
        (lambda p: flip(p.reports / "canary.arrow"), 65, "ChecksumMismatch", "canary.arrow"),
        (lambda p: (p.artifact.parent / "manifest.json").unlink(), 66, "ManifestMissing", "manifest.json"),
        (lambda p: (p.artifact / "index.faiss").unlink(), 66, "ArtifactNotFound", "index.faiss"),
        (lambda p: (p.reports / "report.json").unlink(), 66, "ReportNotFound", "report.json"),
    ],
)
def test_what_cannot_be_verified_never_serves(
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Published], None],
    code: int,
    reason: str,
    named: str,
) -> None:
    copy = copied(published, tmp_path / "copy")
    damage(copy)
    found, failure = refused(copy.task, tmp_path, monkeypatch)
    assert (found, failure.reason) == (code, reason)
    assert named in (failure.object or "") + failure.message


def test_a_pod_below_the_gates_canary_recall_never_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish_all(tmp_path / "weak", ef_search=1, canary_recall=0.99)
    code, failure = refused(published.task, tmp_path, monkeypatch)
    assert (code, failure.reason) == (65, "CanaryRecall")
    assert "0.9850" in failure.message


def test_canary_recall_may_be_lower_by_the_tolerance_and_not_more(tmp_path: Path) -> None:
    measured = load.load(publish_all(tmp_path / "0", ef_search=8).task, print).canary_recall
    assert measured is not None
    assert measured < 0.99
    at = publish_all(tmp_path / "1", ef_search=8, canary_recall=measured + contract.CANARY_TOLERANCE)
    assert load.load(at.task, print).canary_recall == measured
    beyond = publish_all(tmp_path / "2", ef_search=8, canary_recall=measured + contract.CANARY_TOLERANCE + 1e-6)
    with pytest.raises(BadData):
        load.load(beyond.task, print)


def test_a_canary_without_queries_proves_nothing(published: Published, tmp_path: Path) -> None:
    copy = copied(published, tmp_path)
    path = copy.reports / CANARY_FILE
    write_canary(read_canary(path).slice(0, 0), path)
    report = Report.model_validate_json((copy.reports / "report.json").read_bytes())
    data = encode(report.model_copy(update={"canary_queries": 0, "files": (describe_file(path),)}))
    (copy.reports / "report.json").write_bytes(data)
    task = copy.task.model_copy(update={"report_sha256": hashlib.sha256(data).hexdigest()})
    with pytest.raises(BadData, match="on 0 canary queries"):
        load.load(task, print)


def test_a_report_of_another_manifest_is_refused(published: Published) -> None:
    store = open_store(published.task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, IDENTITY)
    manifest, _ = load_manifest(store, layout, "d1")
    folder = published.root / "files"
    task = published.task.model_copy(update={"manifest_sha256": "0" * 64})
    with pytest.raises(TaskError, match=r"report\.json"):
        load.prove(Engine.open(folder, manifest), store, layout, task)


def test_without_a_gate_the_canary_is_skipped(published: Published) -> None:
    task = published.task.model_copy(update={"gate_hash": "", "report_sha256": ""})
    assert load.load(task, print).canary_recall is None


@pytest.mark.parametrize("name", ["manifest_sha256", "report_sha256"])
def test_a_gate_without_checksums_is_no_proof(published: Published, name: str) -> None:
    with pytest.raises(BadSpec):
        load.load(published.task.model_copy(update={name: ""}), print)


@pytest.mark.parametrize("asked", [True, False])
def test_an_index_in_huge_pages_is_proven_as_it_will_answer(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(huge_pages, "possible", lambda: True)
    copy = copied(published, tmp_path / "copy")
    loaded = load.load(copy.task, print, huge_pages=asked)
    assert loaded.canary_recall == load.load(published.task, print).canary_recall
    mapped = str(loaded.held.folder.resolve() / "index.faiss") in Path("/proc/self/maps").read_text()
    assert mapped is not asked


def test_the_artifact_stays_in_the_cache_while_it_is_served_and_each_phase_is_timed(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(published, tmp_path / "copy")
    loaded = load.load(copy.task, print)
    assert list(loaded.seconds) == ["manifest", "fetch", "open", "canary"]
    assert min(loaded.seconds.values()) >= 0
    cache = NodeCache(tmp_path / "copy" / "cache", 1)
    cache.hold("other", 1).close()
    assert (loaded.held.folder / "index.faiss").is_file()
    loaded.held.close()
    monkeypatch.setattr(caches, "IN_USE_SECONDS", 0.0)  # as if it were long ago
    cache.hold("other", 1).close()
    assert not loaded.held.folder.exists()
    gauges = Gauges(load_seconds=loaded.seconds)
    text = SearcherMetrics("r", EvidenceRing(()), gauges).exposition().decode()
    assert 'vectorindex_load_seconds{phase="canary",revision="r"}' in text


# ---------------------------------------------------------------- life


def live(task: contract.ServeTask, settings: Settings, scenario: Callable[[], None]) -> None:
    """Run a whole searcher here, with `scenario` on a thread beside it; SIGTERM when that ends."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            scenario()
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    # Before the server has its own handler, and after it took that away, SIGTERM must not end the tests.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        thread.start()
        uvloop.run(Server(task, settings).run())
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert not errors, errors


def test_admin_port_tells_of_the_loading_and_the_user_port_opens_when_ready(
    published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    go = threading.Event()
    original = load.load

    def slow(task: contract.ServeTask, tell: Callable[[str], None], cache_bytes: int, **more: bool) -> load.Loaded:
        tell("fetching slowly")
        assert go.wait(60)
        return original(task, tell, cache_bytes, **more)

    monkeypatch.setattr(load, "load", slow)

    def scenario() -> None:
        admin = until(lambda: port_of(caplog, "admin port open"))
        assert get(admin, "/livez")[0] == 200
        status, document = until(lambda: (r := get(admin, "/readyz"))[1]["message"] == "fetching slowly" and r)
        assert (status, document["reason"]) == (503, "Loading")
        assert get(admin, "/v1/evidence")[1]["buckets"] == []
        assert port_of(caplog, "ready") is None
        go.set()
        users = until(lambda: port_of(caplog, "ready"))
        assert get(admin, "/readyz")[0] == 200
        assert get(users, "/v1/index")[1]["count"] == COUNT

    live(published.task, LOCAL, scenario)


def port_of(caplog: pytest.LogCaptureFixture, message: str) -> int | None:
    return next((record.port for record in caplog.records if record.getMessage() == message), None)  # type: ignore[attr-defined]


def test_sigterm_while_loading_ends_at_once(
    published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    go = threading.Event()
    monkeypatch.setattr(load, "load", lambda *_, **_more: go.wait(60))
    began = time.monotonic()
    live(published.task, replace(LOCAL, grace_seconds=60), lambda: until(lambda: port_of(caplog, "admin port open")))
    assert time.monotonic() - began < 30, "neither the load nor the grace was waited for"
    go.set()


@pytest.mark.parametrize("answered", [True, False])
def test_a_search_under_way_at_sigterm_is_answered_within_the_bound(
    published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answered: bool
) -> None:
    caplog.set_level(logging.INFO)
    began, gate = threading.Event(), threading.Event()
    original = Engine.search

    def slow(self: Engine, *arguments: Any, **named: Any) -> Any:
        if port_of(caplog, "ready"):
            began.set()
            gate.wait(60)
        return original(self, *arguments, **named)

    monkeypatch.setattr(Engine, "search", slow)
    answers: list[http.client.HTTPResponse] = []

    def ask(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = orjson.dumps({"vector": published.vectors[3].tolist(), "include": ["metadata"]})
        try:
            connection.request("POST", "/v1/search", body)
            answers.append(connection.getresponse())
            answers[-1].read()
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    asking: list[threading.Thread] = []

    def scenario() -> None:
        users = until(lambda: port_of(caplog, "ready"))
        asking.append(threading.Thread(target=ask, args=(users,)))
        asking[0].start()
        assert began.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: not listening(users))
        if answered:
            gate.set()

    live(published.task, replace(LOCAL, drain_seconds=60.0 if answered else 0.4), scenario)
    gate.set()
    asking[0].join()
    assert [(answer.status, answer.getheader("Connection")) for answer in answers] == [(200, "close")] * answered
    drained = [record for record in caplog.records if record.getMessage() == "drained"]
    assert [record.unanswered for record in drained] == [0 if answered else 1]  # type: ignore[attr-defined]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------- rolling restart


@pytest.fixture(params=["1", "2"], ids=["one process", "two processes"])
def searchers(published: Published, request: pytest.FixtureRequest) -> Iterator[tuple[Searcher, Searcher]]:
    quick = {"VECTORINDEX_GRACE_SECONDS": "2.5", "VECTORINDEX_PROCESSES": request.param}
    with started(published.task, **quick) as old, started(published.task, **quick) as new:
        yield old, new


def test_rolling_restart_under_load_loses_no_query(published: Published, searchers: tuple[Searcher, Searcher]) -> None:
    old, new = searchers
    ports = old.port(), new.port()
    service, stop = {"port": ports[0]}, threading.Event()
    one = orjson.dumps({"vector": published.vectors[3].tolist()})
    many = orjson.dumps({"vectors": published.vectors[:20].tolist(), "params": {"efSearch": 500}})
    clients = [Client(service, body, stop) for body in (one,) * 6 + (many,) * 2]
    threads = [threading.Thread(target=client.run) for client in clients]
    idle = socket.create_connection(("127.0.0.1", ports[0]), timeout=60)
    for thread in threads:
        thread.start()
    until(lambda: all(client.answered for client in clients))
    old.process.send_signal(signal.SIGTERM)
    until(lambda: any(line["message"] == "ending" for line in old.log))
    # Endpoints follow a moment later: until then new connections still come to the old pod, and it answers them.
    before = [client.answered[ports[0]] for client in clients]
    until(lambda: all(client.answered[ports[0]] > was for client, was in zip(clients, before, strict=True)))
    service["port"] = ports[1]
    with idle:
        assert idle.recv(1) == b""
    assert old.process.wait(60) == 0
    until(lambda: all(client.answered.get(ports[1]) or client.failures for client in clients))
    stop.set()
    for thread in threads:
        thread.join()
    assert [client.failures for client in clients] == [[]] * len(clients)
    drained = [line for line in old.log if line["message"] == "drained"]
    assert [line["unanswered"] for line in drained] == [0]


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("crowded", ["user port", "admin port"])
def test_probes_are_answered_whatever_strangers_hold_open(published: Published, crowded: str, processes: str) -> None:
    """With all descriptors taken, or 257 idle connections on the admin port, the kubelet restarted the pod."""
    with started(published.task, descriptors=200, VECTORINDEX_PROCESSES=processes) as searcher:
        port, admin = searcher.port(), searcher.port("admin port open")
        with contextlib.ExitStack() as crowd:
            for number in range(500):
                to = port if crowded == "user port" else admin
                one = crowd.enter_context(socket.create_connection(("127.0.0.1", to), timeout=60))
                with contextlib.suppress(OSError):
                    one.sendall((b"", b"GET /livez HT", b"\r\n")[number % 3])
            for path in ("/livez", "/readyz", "/livez", "/readyz"):
                assert get(admin, path)[0] == 200
            assert get(port, "/v1/index")[0] == 200
        assert [line for line in searcher.log if line["level"] == "error"] == []
