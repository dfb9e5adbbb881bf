"""Searchers of parts and a router as a cluster starts them: processes with their tasks in the environment."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from searcher_process import started
from unit.test_searcher_shards import COUNT, IDENTITY, Place, small, vectors_of, write
from waiting import until

from vectorindex_searcher.artifact.manifest import encode
from vectorindex_searcher.cli import commands, flags
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import ExitCode, Partial, RouteTask, ServeTask, revision_key

__all__ = ["small"]  # the fixture


def post(port: int, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/search", orjson.dumps(body))
    response = connection.getresponse()
    found = response.status, orjson.loads(response.read())
    connection.close()
    return found


def test_parts_that_were_built_are_served_and_asked_as_one(tmp_path: Path) -> None:
    vectors = vectors_of(COUNT)
    place = Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), vectors), factory="Flat")
    whole = place.all(2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with ExitStack() as stack:
        addresses = []
        for number in range(2):
            told = {"revision": "r", "manifest_sha256": whole.manifest_sha256, "cache_dir": str(tmp_path / "cache")}
            pod = stack.enter_context(started(ServeTask(**place.common, **told, shard=number)))
            addresses.append((f"http://127.0.0.1:{pod.port()}",))
        router = stack.enter_context(started(RouteTask(identity=IDENTITY, revision="r", shards=tuple(addresses))))
        port = router.port()
        for row in (3, 500):
            status, answer = post(port, {"vector": vectors[row].tolist(), "k": 20, "include": ["metadata"]})
            (result,) = answer["results"]
            assert status == 200
            assert result["ids"][0] == row
            assert result["metadata"][0] == {"title": f"t{row}"}
            assert set(result["ids"]) == set(np.argsort(-(unit @ unit[row]))[:20].tolist())
        os.kill(router.process.pid, signal.SIGTERM)
        assert router.process.wait(60) == ExitCode.OK


OFTEN = """
from vectorindex_searcher.serve.route import live_recall
from vectorindex_searcher.cli import main
live_recall.ROUND_SECONDS = 0.2
raise SystemExit(main.main())
"""
"""A router that judges live recall without waiting for half a minute of queries."""


def test_pods_of_several_processes_prove_themselves_and_scan_for_routers(tmp_path: Path) -> None:
    vectors = vectors_of(COUNT)
    place = Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), vectors), factory="Flat")
    whole = place.all(2)
    report = hashlib.sha256(encode(place.prove())).hexdigest()
    gate = {"gate_hash": "g1", "report_sha256": report, "gate_of_whole": True, "live_recall": True}
    told = {"revision": "r", "manifest_sha256": whole.manifest_sha256, "cache_dir": str(tmp_path / "cache"), **gate}
    key = {"VECTORINDEX_INTERNAL_KEY": revision_key("k" * 32, "uid")}
    with ExitStack() as stack:
        shards = [ServeTask(**place.common, **told, shard=number) for number in range(2)]
        pods = [stack.enter_context(started(one, **key, VECTORINDEX_PROCESSES="2")) for one in shards]
        users = tuple((f"http://127.0.0.1:{pod.port()}",) for pod in pods)
        ports = tuple(pod.port("admin port open") for pod in pods)
        task = RouteTask(
            identity=IDENTITY, revision="r", shards=users, gate_hash="g1", live_recall=True, admin_ports=ports
        )
        router = stack.enter_context(started(task, program=("-c", OFTEN), **key))
        port = router.port()

        def judged() -> dict[str, Any] | None:
            assert post(port, {"vector": vectors[3].tolist(), "k": 5})[0] == 200
            rounds = [line for line in router.log if line["message"] == "live recall" and line["judged"]]
            return rounds[0] if rounds else None

        assert until(judged)["recall"] == 1.0
        proven = next(line for line in router.log if line["message"] == "merged answers to the canary queries")
        assert (proven["recall"], proven["queries"]) == (1.0, 46)


def options(*arguments: str) -> Any:
    return flags.parser().parse_args(["route", *arguments])


def test_flags_name_the_pods_of_each_shard_in_their_order() -> None:
    told = options("--shard", "http://a.svc:1,http://[::1]:2", "--shard", "http://b:3", "--partial", "Allow")
    task = commands.route_task(told, None)
    assert task.shards == (("http://a.svc:1", "http://[::1]:2"), ("http://b:3",))
    assert (task.partial, task.revision, task.identity.name) == (Partial.ALLOW, "", "index")
    assert commands.route_task(options(), task.task_text(first_release=False)) == task


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "MissingFlag"),
        (("--shard", "https://a:1"), "BadFlag"),
        (("--shard", "http://a"), "BadFlag"),
        (("--shard", "http://a:1/path"), "BadFlag"),
        (("--shard", "http://a:1@evil:2"), "BadFlag"),
        (("--shard", "http://a:1", "--shard-token-file", "/nowhere"), "TokenFileMissing"),
        (("--shard", "http://a:1", "--http-port", "70000"), "BadSetting"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["route", *arguments]) == ExitCode.BAD_SPEC
    assert f'"reason": "{reason}"' in capsys.readouterr().out


def test_a_router_does_not_open_what_shards_show_to_holders_of_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("a-token-that-is-long")
    arguments = ("route", "--shard", "http://a:1", "--shard-token-file", str(tmp_path / "token"))
    assert main(list(arguments)) == ExitCode.BAD_SPEC
    assert "users would not be asked for one" in capsys.readouterr().out
    assert main([*arguments, "--policies", str(tmp_path / "policies.json")]) == ExitCode.BAD_SPEC
    assert "policies are of tokens" in capsys.readouterr().out
