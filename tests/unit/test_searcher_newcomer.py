"""Mistakes of a person at a terminal: each is answered with what was typed, what it was, and what to do."""

from __future__ import annotations

import errno
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectorindex_searcher.cli import flag_names
from vectorindex_searcher.cli import flags as cli_flags
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import ExitCode, Failure

QUIET = ["--http-port", "0", "--admin-port", "0"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    np.save("in.npy", np.random.default_rng(0).standard_normal((40, 4), dtype=np.float32))
    return tmp_path


@pytest.fixture
def artifact(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["build", "--source", "in.npy", "--out", "out", "--factory", "Flat"]) == 0
    capsys.readouterr()
    return "out"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the failure, and all of its text."""
    code = main(list(arguments))
    failure = json.loads(capsys.readouterr().out)
    return code, failure, " ".join(str(value) for value in failure.values())


BUILD = ["build", "--source", "in.npy", "--out", "out"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build", "--source", "no", "--out", "out"], 66, ["FolderNotFound", "--source", "no "]),
        (["build", "--source", "http://a/b", "--out", "out"], 64, ["BadLocation", "http://a/b", "s3://bucket/prefix"]),
        (["build", "--source", "s3://", "--out", "out"], 64, ["BadLocation", "s3://", "bucket"]),
        ([*BUILD, "--metadata", "title"], 64, ["UnknownColumn", "--metadata", "title"]),
        ([*BUILD, "--dimension", "5"], 65, ["DimensionMismatch", "--dimension", "5"]),
        ([*BUILD, "--device", "GPU"], 75, ["GPUNotFound", "--device", "PreferGPU"]),
        ([*BUILD, "--factory", "HNSW8", "--search-params", "nprobe=3"], 64, ["--search-params nprobe", "efSearch"]),
        ([*BUILD, "--recall", "1.5"], 64, ["BadTask", "--recall", "1.5"]),
        ([*BUILD, "--memory-limit", "4X"], 64, ["BadTask", "--memory-limit", "4X", "4Gi"]),
        ([*BUILD, "--work-dir", "no"], 64, ["--work-dir", "no ", "existing"]),
        ([*BUILD, "--metrics-port", "70000"], 64, ["--metrics-port", "70000", "65535"]),
        ([*BUILD, "--digest", "a/b"], 64, ["--digest", "a/b"]),
        ([*BUILD, "--name", "a b"], 64, ["--name", "a b"]),
        (["build", "--source", "in.npy", "--out", "in.npy"], 69, ["in.npy", "--out", "folder"]),
        (["validate", "--artifact", "no"], 64, ["ArtifactNotFound", "--artifact", "no/local/index", "--out"]),
        (["validate", "--artifact", "."], 64, ["ArtifactNotFound", "--name", "--namespace"]),
        (["serve", "--artifact", "in.npy"], 64, ["ArtifactNotFound", "--artifact"]),
    ],
)
def test_a_mistake_names_flag_value_and_remedy(
    arguments: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, failure, text = failed(capsys, *arguments)
    assert exit_code == code
    assert failure["remedy"]
    assert [word for word in words if word not in text] == []
    assert "spec." not in text
    assert "pydantic" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["validate", "--digest", "zzz"], 64, ["--digest", "zzz"]),
        (["validate", "-k", "0"], 64, ["-k", "0"]),
        (["validate", "--floor", "95"], 64, ["--floor", "95"]),
        (["validate", "--queries", "no"], 66, ["--queries", "no "]),
        (["validate", "--segments", "short"], 64, ["--segments", "short", "--segment-column", "--queries"]),
        (["serve", "--http-port", "99999", "--admin-port", "0"], 64, ["--http-port", "99999", "65535"]),
        (["serve", "--cache-limit", "3X"], 64, ["--cache-limit", "3X", "20Gi"]),
        (["serve", "--cache-dir", "in.npy", *QUIET], 70, ["--cache-dir", "in.npy"]),
        (["serve", "--host", "no host", *QUIET], 64, ["--host", "no host"]),
        (["serve", "--gate", "zzz", *QUIET], 64, ["--gate", "zzz", "validate"]),
    ],
)
def test_a_mistake_with_an_artifact(
    artifact: str, arguments: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, failure, text = failed(capsys, arguments[0], "--artifact", artifact, *arguments[1:])
    assert exit_code == code
    assert failure["remedy"]
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("flag", ["--http-port", "--admin-port"])
def test_a_port_in_use_is_named(artifact: str, taken: int, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    ports = [*QUIET, flag, str(taken), "--host", "127.0.0.1", "--cache-dir", "cache"]
    code, failure, text = failed(capsys, "serve", "--artifact", artifact, *ports)
    assert (code, failure["reason"]) == (ExitCode.BAD_SPEC, "PortUnavailable")
    assert flag in text
    assert str(taken) in text
    assert failure["remedy"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error in faiss::write_index: write error: 245 != 768 (No space left on device)"),
    ],
)
def test_a_full_disk_is_tried_again(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("vectorindex_searcher.build.given.stage", full)
    code, failure, text = failed(capsys, *BUILD)
    assert (code, failure["reason"]) == (ExitCode.RETRY, "DiskFull")
    assert "--work-dir" in text


def test_without_a_pod_the_cache_is_the_persons_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cli_flags.parser().parse_args(["serve"]).cache_dir == str(tmp_path / "mine" / "vectorindex")


def test_every_flag_in_a_message_exists() -> None:
    verbs = cli_flags.parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,index,call-overload]
    known = {flag for verb in verbs.values() for action in verb._actions for flag in action.option_strings}
    assert {flag.strip() for _, flag in flag_names.FLAGS if flag.startswith("--")} <= known


def test_a_message_in_a_pod_keeps_the_field() -> None:
    failure = Failure(reason="R", message="spec.source.columns.id is x", field="spec.artifacts.folder", remedy="Do it.")
    said = flag_names.for_a_person(failure, "validate")
    assert (said.message, said.field) == ("--id-column is x", "--artifact")
    assert failure.field == "spec.artifacts.folder"


def test_ctrl_c_while_libraries_load_ends_without_a_traceback() -> None:
    program = (
        "import os, signal, sys, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'vectorindex_searcher.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from vectorindex_searcher.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "inspect"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_lost_file_and_a_manifest_of_another_version_say_what_to_do(
    artifact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifest,) = Path(artifact).rglob("manifest.json")
    next(Path(artifact).rglob("ids.arrow")).unlink()
    code, failure, _ = failed(capsys, "serve", "--artifact", artifact, *QUIET, "--cache-dir", "cache")
    assert (code, failure["reason"]) == (66, "ArtifactNotFound")
    assert "build it again" in failure["remedy"]
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"formatVersion": 99}))
    code, failure, text = failed(capsys, "serve", "--artifact", artifact, *QUIET, "--cache-dir", "cache")
    assert (code, failure["reason"]) == (65, "BadManifest")
    assert "formatVersion" in text
    assert "build it again" in failure["remedy"]
