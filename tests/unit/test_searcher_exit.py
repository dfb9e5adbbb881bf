"""Exit codes and progress of `build` as others see them: a process, its log, its metrics port, its terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ports import held

from vectorindex_searcher.contract import BuildTask, ExitCode, Identity, Location

CORES = sorted(os.sched_getaffinity(0))
CORE = CORES[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(CORES)]
"""Another one for each process of tests; by process number two of them would share one as often as not."""
PROGRAM = [sys.executable, "-m", "vectorindex_searcher", "build"]


def pin() -> None:
    """OpenMP threads that spin on a busy machine take many times as long."""
    os.sched_setaffinity(0, {CORE})
    # A shell starts background jobs with SIGINT ignored, and whoever is started with it ignored never sees it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def little_memory() -> None:
    """Of private memory; the libraries take most of it, the index does not fit beside them."""
    pin()
    resource.setrlimit(resource.RLIMIT_DATA, (750 << 20, 750 << 20))


def source(folder: Path, rows: int = 300, dimension: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "a.npy", np.random.default_rng(0).standard_normal((rows, dimension), dtype=np.float32))
    return folder


def fine(root: Path) -> list[str]:
    return ["--factory", "Flat", "--source", str(source(root / "in"))]


def no_factory(root: Path) -> list[str]:
    return ["--factory", "Nonsense7", "--source", str(source(root / "in"))]


def not_a_number(root: Path) -> list[str]:
    bad = np.ones((20, 4), np.float32)
    bad[7, 2] = np.nan
    (root / "in").mkdir()
    np.save(root / "in" / "a.npy", bad)
    return ["--source", str(root / "in")]


def nothing(root: Path) -> list[str]:
    return ["--source", str(root / "in")]


def no_place(root: Path) -> list[str]:
    (root / "out").write_text("a file where the folder should be")
    return fine(root)


def no_gpu(root: Path) -> list[str]:
    return ["--device", "GPU", *fine(root)]


def too_large(root: Path) -> list[str]:
    """150 MiB of float32 in one flat index; the file itself is a hole."""
    (root / "in").mkdir()
    np.lib.format.open_memmap(root / "in" / "a.npy", "w+", np.float32, (400_000, 256)).flush()
    return ["--factory", "Flat", "--metric", "L2", "--source", str(root / "in")]


@pytest.mark.parametrize(
    ("code", "reason", "arrange", "limits"),
    [
        (ExitCode.OK, "", fine, pin),
        (ExitCode.BAD_SPEC, "UnknownFactory", no_factory, pin),
        (ExitCode.BAD_DATA, "NonFiniteVector", not_a_number, pin),
        (ExitCode.SOURCE_MISSING, "FolderNotFound", nothing, pin),
        (ExitCode.STORE_UNAVAILABLE, "StoreUnavailable", no_place, pin),
        (ExitCode.RETRY, "GPUNotFound", no_gpu, pin),
        (ExitCode.MEMORY, "OutOfMemory", too_large, little_memory),
    ],
)
def test_exit_codes_of_the_process(
    tmp_path: Path,
    code: ExitCode,
    reason: str,
    arrange: Callable[[Path], list[str]],
    limits: Callable[[], None],
) -> None:
    flags = [*arrange(tmp_path), "--out", str(tmp_path / "out"), "--digest", "d"]
    log = tmp_path / "termination-log"
    environment = os.environ | {"VECTORINDEX_TERMINATION_LOG": str(log)}
    done = subprocess.run([*PROGRAM, *flags], capture_output=True, text=True, preexec_fn=limits, env=environment)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer.get("reason", "")) == (code, reason), done.stderr[-2000:]
    assert json.loads(log.read_bytes()) == {name: value for name, value in answer.items() if value is not None}
    assert "Traceback" not in done.stderr


def test_a_bug_is_70_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    program = (
        "import sys, vectorindex_searcher.build.given as b; b.stage = None;"
        "from vectorindex_searcher.cli.main import main; sys.exit(main())"
    )
    flags = ["build", *fine(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, preexec_fn=pin)
    assert (done.returncode, json.loads(done.stdout)["reason"]) == (ExitCode.BUG, "Bug")
    assert "Traceback" in done.stderr


def test_a_fault_in_native_code_leaves_its_place_in_the_log(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, vectorindex_searcher.build.given as b;"
        "b.stage = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV);"
        "from vectorindex_searcher.cli.main import main; sys.exit(main())"
    )
    flags = ["build", *fine(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, preexec_fn=pin)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr
    assert "build/task.py" in done.stderr


def test_a_job_that_is_told_to_end_handles_that(tmp_path: Path) -> None:
    """The first process of a container does not get a SIGTERM that it does not handle: it would go on until it is
    killed, and publish what nobody wants any more."""
    program = (
        "import sys, time, vectorindex_searcher.build.given as b;"
        "b.stage = lambda *_, **__: print('builds', flush=True) or time.sleep(60);"
        "from vectorindex_searcher.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "build", *fine(tmp_path), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "builds\n"
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM


def test_a_job_that_is_told_to_end_while_it_starts_ends_before_it_begins(tmp_path: Path) -> None:
    """As the images' ENTRYPOINT starts it. The signal is there before the interpreter is."""
    kill_first = ["sh", "-c", 'kill -TERM $$; exec "$@"', "sh"]
    flags = [*fine(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([*_entrypoint()[:-1], *kill_first, *PROGRAM, *flags], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
    assert not (tmp_path / "out").exists()


def _entrypoint() -> list[str]:
    """What the images of searchers and Jobs start."""
    lines = (Path(__file__).parents[2] / "Dockerfile").read_text().splitlines()
    found = {line for line in lines if line.startswith("ENTRYPOINT") and "vectorindex-searcher" in line}
    assert len(found) == 1
    return [str(word) for word in json.loads(found.pop().removeprefix("ENTRYPOINT "))]


@pytest.mark.parametrize("began", ["-m", "-c"])
def test_no_thread_that_still_runs_can_take_the_exit_code_with_it(tmp_path: Path, began: str) -> None:
    """An interpreter that is taken down around native code aborts at times. Here it always would."""
    (tmp_path / "sitecustomize.py").write_text("import atexit, os; atexit.register(os.abort)")
    start = {"-m": "vectorindex_searcher", "-c": "from vectorindex_searcher.cli.entry import main; main()"}[began]
    flags = ["build", *nothing(tmp_path), "--out", str(tmp_path / "out")]
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run([sys.executable, began, start, *flags], capture_output=True, text=True, env=environment)
    assert done.returncode == ExitCode.SOURCE_MISSING
    assert json.loads(done.stdout)["reason"] == "FolderNotFound", "what was said is whole"


def test_output_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    flags = [*fine(tmp_path), "--out", str(tmp_path / "out"), "--digest", "d"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *flags], stdout=full, stderr=subprocess.PIPE, env=environment)
    assert done.returncode == 120
    assert b"standard output: No space left on device" in done.stderr


def test_who_reads_no_more_is_told_by_the_code(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    flags = [*fine(tmp_path), "--out", str(tmp_path / "out"), "--digest", "d"]
    # Not unbuffered, or it would be known long before the end.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([*PROGRAM, *flags], stdout=write, stderr=subprocess.PIPE, env=environment)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"Traceback" not in done.stderr


def test_a_source_that_changed_is_75(tmp_path: Path) -> None:
    place = Location(folder=str(source(tmp_path / "in")))
    out = Location(folder=str(tmp_path / "out"))
    task = BuildTask(identity=Identity(name="n"), digest="d", fingerprint="0" * 64, source=place, artifacts=out)
    log = tmp_path / "log"
    environment = os.environ | {"VECTORINDEX_TASK": json.dumps(task.wire()), "VECTORINDEX_TERMINATION_LOG": str(log)}
    done = subprocess.run(PROGRAM, capture_output=True, text=True, preexec_fn=pin, env=environment)
    assert (done.returncode, json.loads(log.read_text())["reason"]) == (ExitCode.RETRY, "SourceChanged")


# ---------------------------------------------------------------- progress


def slow(root: Path) -> list[str]:
    """A build of a few seconds on one core, in three blocks: a graph."""
    flags = ["--factory", "HNSW16", "--source", str(source(root / "in", 9000, 1024)), "--out", str(root / "out")]
    return [*PROGRAM, *flags, "--metric", "L2"]


def test_metrics_tell_the_step_its_rows_and_its_rate(tmp_path: Path) -> None:
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with held() as (port,):
        environment = os.environ | {"VECTORINDEX_METRICS_PORT": str(port)}
        with subprocess.Popen(slow(tmp_path), **output, preexec_fn=pin, env=environment) as running:
            try:
                seen = scrape_until(port, running, 'vectorindex_task_rows{step="adding rows",verb="build"} [1-9]')
            finally:
                running.kill()
    found = {name: float(value) for name, value in re.findall(r"^vectorindex_(task_\w+){.*} (\S+)$", seen, re.M)}
    assert found["task_rows_expected"] in (8550, 9000)  # what is measured first has 5 % less
    assert 0 < found["task_rows"] <= 9000
    assert found["task_bytes"] == found["task_rows"] * 1024 * 4
    assert found["task_rows_per_second"] > 0
    assert found["task_eta_seconds"] >= 0
    assert 'vectorindex_task_step{step="adding rows",verb="build"} 1.0' in seen


def scrape_until(port: int, running: subprocess.Popen[bytes], wanted: str) -> str:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert running.poll() is None, "it ended before its progress was seen"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                text: str = answer.read().decode()
        except OSError:
            text = ""
        if re.search(wanted.replace("{", r"\{").replace("}", r"\}"), text):
            return text
        time.sleep(0.01)
    raise AssertionError(f"never seen: {wanted}")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        flags = [*fine(tmp_path), "--out", str(tmp_path / "out"), "--metrics-port", str(taken.getsockname()[1])]
        done = subprocess.run([*PROGRAM, *flags], capture_output=True, text=True, preexec_fn=pin)
    assert (done.returncode, json.loads(done.stdout)["reason"]) == (ExitCode.BAD_SPEC, "PortInUse")


def test_a_log_has_rate_and_rows_and_a_terminal_a_bar(tmp_path: Path) -> None:
    flags = [*PROGRAM, *fine(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(flags, capture_output=True, text=True, preexec_fn=pin, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (adding,) = (line for line in lines if line["message"] == "adding rows")
    assert (adding["rows"], adding["total"], adding["etaSeconds"]) == (300, 300, 0)
    assert adding["rowsPerSecond"] > 0

    ours, theirs = pty.openpty()
    flags = [*PROGRAM, *fine(tmp_path), "--out", str(tmp_path / "again")]
    with subprocess.Popen(flags, stdout=subprocess.DEVNULL, stderr=theirs, preexec_fn=pin) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            shown += piece
        assert running.wait() == 0
    os.close(ours)
    text = shown.decode(errors="replace")
    assert "300/300" in text
    assert "adding rows" in text
    assert "━" in text
    assert "{" not in text, "no JSON for a person"


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    with subprocess.Popen(slow(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=pin) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if b'"building"' in line:
                break
        running.send_signal(signal.SIGINT)
        running.stderr.read()
        assert running.wait() == 130
    assert not list((tmp_path / "out").rglob("manifest.json"))
