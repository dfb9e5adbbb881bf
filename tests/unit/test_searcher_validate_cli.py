"""`validate` and `inspect` as a person on a laptop uses them: verdicts, pages, summaries, no Kubernetes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.cli.commands import serve_task
from vectorindex_searcher.cli.flags import parser
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import ExitCode, ServeTask
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.serve.load import load

COUNT, DIMENSION = 600, 8


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 2)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 2)


def vectors(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose recall is about .6: quantised far too coarsely."""
    root = tmp_path_factory.mktemp("cli")
    (root / "in").mkdir()
    np.save(root / "in" / "a.npy", vectors(COUNT, 0))
    with pytest.MonkeyPatch.context() as patch:
        quick.__wrapped__(patch)  # type: ignore[attr-defined]
        arguments = ["build", "--source", str(root / "in"), "--out", str(root / "out"), "--factory", "PQ4x6"]
        assert main(arguments) == 0
    return root


def write_queries(path: Path, seed: int, kinds: list[str]) -> None:
    flat = pa.array(vectors(len(kinds), seed).ravel())
    pq.write_table(pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION), "kind": kinds}), path)


def validate(place: Path, *flags: str) -> int:
    return main(["validate", "--artifact", str(place / "out"), *flags])


def test_floor_decides_the_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(place) == ExitCode.OK
    measured = json.loads(capsys.readouterr().out)["overall"]
    assert 0.2 < measured["recallLow"] < measured["recall"] < 0.9
    assert validate(place, "--floor", f"{measured['recallLow'] - 0.001:.4f}") == ExitCode.OK
    assert "is proven. recall@10" in capsys.readouterr().err
    between = (measured["recallLow"] + measured["recall"]) / 2
    assert validate(place, "--floor", f"{between:.4f}") == ExitCode.BELOW_FLOOR
    captured = capsys.readouterr()
    assert "is not proven: with so few rows only 300 queries can be left out" in captured.err
    assert json.loads(captured.out)["overall"] == measured  # stdout stays JSON, whatever the verdict
    assert validate(place, "--floor", "0.95") == ExitCode.BELOW_FLOOR
    assert "The floor of 0.95 is missed." in capsys.readouterr().err


def test_floors_of_segments(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_queries(tmp_path / "q.parquet", 5, ["fr"] * 40 + ["de"] * 40)
    flags = ["--queries", str(tmp_path / "q.parquet"), "--segment-column", "kind", "--segments", "fr", "de", "it"]
    assert validate(place, *flags, "--segment-floor", "fr=0.1", "de=0.99") == ExitCode.BELOW_FLOOR
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("segment fr: The floor of 0.1 is proven.")
    assert lines[1].startswith("segment de: The floor of 0.99 is missed.")
    assert validate(place, *flags, "--segment-floor", "it=0.1") == ExitCode.BELOW_FLOOR
    assert "segment it: no queries" in capsys.readouterr().err
    for bad in ("fr", "fr=x", "fr=1.5", "es=0.9"):
        assert validate(place, *flags, "--segment-floor", bad) == ExitCode.BAD_SPEC
        assert f"--segment-floor {bad}" in json.loads(capsys.readouterr().out)["message"]
    assert validate(place, "--floor", "7") == ExitCode.BAD_SPEC


def test_edited_queries_are_measured_anew(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report of a gate is answered when it is there; the same file name with other queries is another gate."""
    path = tmp_path / "q.parquet"
    results = []
    for seed in (5, 5, 6):
        write_queries(path, seed, ["fr"] * 30)
        path.touch()
        assert validate(place, "--queries", str(path)) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[2]["gateHash"] != results[1]["gateHash"]
    assert results[2]["overall"] != results[1]["overall"] == results[0]["overall"]


def test_pages_in_the_store_and_on_the_laptop(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(place, "--confidence", "0.9", "--floor", "0.95", "--html", str(tmp_path / "a.html")) == 3
    gate = json.loads(capsys.readouterr().out)["gateHash"]
    (folder,) = place.glob(f"out/local/index/*/reports/{gate}")
    stored = (folder / "report.html").read_bytes()
    report = json.loads((folder / "report.json").read_bytes())
    files = {file["name"]: file["sha256"] for file in report["files"]}
    assert set(files) == {"canary.arrow", "points.json", "report.html"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha for name, sha in files.items())
    assert (tmp_path / "a.html").read_bytes() == stored
    assert main(["inspect", str(folder), "--html", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "b.html").read_bytes() == stored
    # The floor of this call, not of the one that measured.
    assert validate(place, "--confidence", "0.9", "--floor", "0.25", "--html", str(tmp_path / "c.html")) == 0
    assert b"The floor of 0.25 is proven." in (tmp_path / "c.html").read_bytes()
    assert (folder / "report.html").read_bytes() == stored
    capsys.readouterr()
    assert validate(place, "--html", str(tmp_path / "no" / "where.html")) == ExitCode.BAD_SPEC
    assert "where.html" in capsys.readouterr().out
    assert main(["inspect", str(place), "--html", str(tmp_path / "d.html")]) == ExitCode.BAD_SPEC
    assert "Name one report.json" in capsys.readouterr().out


def test_a_terminal_gets_a_summary_beside_the_json(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert validate(place) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["kind"] == "Validate"
    assert "recall     all: recall@10" in captured.err
    assert "memory     " in captured.err


def test_serve_takes_the_segments_and_points_of_a_gate(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_queries(tmp_path / "q.parquet", 5, ["fr"] * 40)
    flags = ["--queries", str(tmp_path / "q.parquet"), "--segment-column", "kind", "--segments", "fr"]
    assert validate(place, *flags) == 0
    result = json.loads(capsys.readouterr().out)

    def task(gate: str) -> ServeTask:
        arguments = ["serve", "--artifact", str(place / "out"), "--gate", gate, "--cache-dir", str(tmp_path / "cache")]
        return serve_task(parser().parse_args(arguments), None)

    served = task(result["gateHash"])
    assert (served.segments, served.report_sha256) == (("fr",), result["reportSha256"])
    loaded = load(served, lambda text: None)
    assert loaded.canary_recall == result["canaryRecall"]
    assert loaded.points is not None
    with pytest.raises(BadSpec) as caught:
        task("nothing")
    assert result["gateHash"] in (caught.value.failure.remedy or "")


def test_filters_of_queries_are_blamed_by_their_flag(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(place, "--filter-column", "kind") == ExitCode.BAD_SPEC
    told = json.loads(capsys.readouterr().out)
    assert (told["field"], "--queries" in told["remedy"]) == ("--filter-column", True)
    write_queries(tmp_path / "q.parquet", 5, ["", '{"title": "t"}'])
    assert validate(place, "--queries", str(tmp_path / "q.parquet"), "--filter-column", "kind") == ExitCode.BAD_DATA
    told = json.loads(capsys.readouterr().out)
    assert (told["field"], told["row"], told["reason"]) == ("--filter-column", 1, "BadFilter")
    assert "there is no metadata column 'title'" in told["message"]
