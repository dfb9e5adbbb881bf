"""The command line: flags and tasks in, exit codes and JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import BuildTask, ExitCode, Identity, Location

COUNT = 50


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging belongs to pytest, and the machine's threads to other tests."""
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    vectors = [[float(row), 1.0, float(row % 7)] for row in range(COUNT)]
    columns = {"id": range(COUNT), "vector": pa.array(vectors, pa.list_(pa.float32())), "title": ["t"] * COUNT}
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return folder


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(arguments)
    return code, json.loads(capsys.readouterr().out or "{}")


def test_command_line_with_flags(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    places = ["--source", str(source), "--out", out]
    assert run(["resolve", *places], capsys)[1]["rows"] == COUNT
    code, built = run(["build", *places, "--factory", "Flat", "--metadata", "title"], capsys)
    assert (code, built["kind"], built["reused"]) == (0, "Build", False)
    assert run(["build", *places, "--factory", "Flat", "--metadata", "title"], capsys)[1]["reused"]
    code, measured = run(["validate", "--artifact", out], capsys)
    assert (code, measured["overall"]["recall"]) == (0, 1.0)
    assert main(["inspect", out]) == 0
    shown = capsys.readouterr().out
    for fact in (built["digest"], "Flat", "recall@10 1.0000", "canary", "metadata.arrow"):
        assert fact in shown


def test_command_line_with_a_task_and_a_termination_log(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "termination-log"
    places = {"source": Location(folder=str(source)), "artifacts": Location(folder=str(tmp_path / "out"))}
    task = BuildTask(identity=Identity(name="n"), digest="d", **places)
    monkeypatch.setenv("VECTORINDEX_TERMINATION_LOG", str(log))
    monkeypatch.setenv("VECTORINDEX_TASK", json.dumps(task.wire()))
    assert main(["build"]) == 0
    assert json.loads(log.read_bytes())["kind"] == "Build"
    assert log.stat().st_size <= 4096
    monkeypatch.setenv("VECTORINDEX_TASK", '{"identity": {}}')
    assert main(["build"]) == ExitCode.BAD_SPEC
    assert json.loads(log.read_bytes())["reason"] == "BadTask"
    capsys.readouterr()


def boom(*_: object) -> None:
    raise RuntimeError("key is s3cr3t-value")


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        (lambda patch: None, ExitCode.SOURCE_MISSING, "EmptySource"),
        (lambda patch: patch.setattr("vectorindex_searcher.build.task.build", boom), ExitCode.BUG, "Bug"),
    ],
)
def test_failures_are_exit_codes_and_json_without_secrets(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    code: ExitCode,
    reason: str,
) -> None:
    monkeypatch.setenv("SOURCE_AWS_SECRET_ACCESS_KEY", "s3cr3t-value")
    change(monkeypatch)
    (tmp_path / "in").mkdir()
    arguments = ["build", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--digest", "d"]
    exit_code, failure = run(arguments, capsys)
    assert (exit_code, failure["kind"], failure["reason"]) == (code, "Failure", reason)
    assert "s3cr3t" not in json.dumps(failure)


def test_help_needs_no_faiss() -> None:
    program = "import sys; from vectorindex_searcher.cli.flags import parser; parser(); print('faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "False"
