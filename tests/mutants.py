"""Takes each safety device out in turn and sees whether the tests notice: `make mutants` (mutant_table/ has them).

A test that passes must be able to fail. Each mutant is one exact replacement in a copy of the tree, and its tests are
run there, on the copy's packages. What survives has no test that can fail for it; what breaks in another way than by a
failed test proves nothing, and is an error. All named tests are run first without any mutant: they must pass, and
the time they take bounds each mutant, since one without a device may never end.

    .venv/bin/python tests/mutants.py                      all; writes bench/results/mutants.md
    .venv/bin/python tests/mutants.py --only "lease|drain" whose topic, name or file matches; writes nothing
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import cache_from_source
from pathlib import Path

from mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "vectorindex_operator": "operator",
    "vectorindex_searcher": "searcher",
    "vectorindex_client": "client",
    "vectorindex_plugin": "plugin",
}
"""The packages that are mutated, and the folders that they lie in."""
PATIENCE, LONGEST = 3, 60.0
"""A mutant hangs that takes so many times as long as all named tests did without one, and so many seconds more."""
BROKEN = re.compile(r"\b(NameError|UnboundLocalError|SyntaxError|ImportError|ModuleNotFoundError)\b")
"""What a replacement runs into that is no program; no device was taken out."""


class Outcome(StrEnum):
    CAUGHT = "caught"
    HANGS = "hangs"
    """Its tests did not end in time: noticed, as CI would."""
    SURVIVED = "SURVIVED"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Result:
    """`by`: the first test that failed, or what went wrong."""

    mutant: Mutant
    outcome: Outcome
    by: str
    seconds: float

    @property
    def noticed(self) -> bool:
        return self.outcome in (Outcome.CAUGHT, Outcome.HANGS)


class NoGroundError(Exception):
    """Nothing can be told of any mutant here."""


# ---------------------------------------------------------------- a copy of the tree


class Copy:
    """A copy of the files of `root` that git knows or would add, in `folder`. One mutant at a time."""

    def __init__(self, root: Path, folder: Path, packages: Mapping[str, str]) -> None:
        self.folder, self._packages = folder, packages
        for name in _files(root):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target)
        places = [str(folder / place) for place in dict.fromkeys(packages.values())]
        self._env = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        self._check()

    def _check(self) -> None:
        """That the tests here are those of the copy's packages, whatever is installed. Raises NoGroundError."""
        for package, place in self._packages.items():
            command = [sys.executable, "-c", f"import {package}; print({package}.__file__)"]
            said = subprocess.run(command, cwd=self.folder, env=self._env, capture_output=True, text=True, check=False)
            found = said.stdout.strip()
            if not found or not Path(found).resolve().is_relative_to((self.folder / place).resolve()):
                raise NoGroundError(f"{package} is imported from {found or said.stderr[-500:]}, not from {self.folder}")

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        # Bytecode is told from its source by seconds and size, which two mutants may share.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)

    def test(self, tests: Iterable[str], limit: float | None, *, whole: bool = False) -> tuple[int | None, str]:
        """pytest's exit code, None when it did not end in time, and what it said. `whole`: beyond the first failure."""
        wanted = [f"tests/{one}" for one in tests]
        stop = () if whole else ("-x",)
        command = [sys.executable, "-m", "pytest", *stop, "-q", "-p", "no:cacheprovider", "-rfE", "--tb=short", *wanted]
        with tempfile.TemporaryFile("w+") as said:
            # A session of its own: whatever a test has started ends with it.
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_all(process)
            said.seek(0)
            return code, said.read()


def _files(root: Path) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in said.stdout.split("\0") if name and (root / name).is_file()]


def _end_all(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---------------------------------------------------------------- one mutant


def try_one(copy: Copy, mutant: Mutant, limit: float) -> Result:
    """Apply it, run its tests, undo it."""
    began, before = time.monotonic(), dict[str, str]()
    try:
        for edit in mutant.edits:
            text = (copy.folder / edit.file).read_text()
            before.setdefault(edit.file, text)
            if text.count(edit.find) != 1:
                said = f"{edit.file} has its text {text.count(edit.find)} times"
                return Result(mutant, Outcome.ERROR, said, time.monotonic() - began)
            copy.put(edit.file, text.replace(edit.find, edit.replace))
        code, said = copy.test((*mutant.tests, *mutant.each), limit, whole=bool(mutant.each))
    finally:
        for name, text in before.items():
            copy.put(name, text)
    return Result(mutant, *_judged(mutant, code, said), time.monotonic() - began)


def _judged(mutant: Mutant, code: int | None, said: str) -> tuple[Outcome, str]:
    every = list(re.finditer(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - (.*))?$", said, re.MULTILINE))
    failed = every[0] if every else None
    if code is None:
        return Outcome.HANGS, "no end in time"
    if code == 0:
        return Outcome.SURVIVED, said.strip().splitlines()[-1]
    # Below 0: a thread that a failed test has left behind ended the process after pytest had told all.
    if code > 1 or failed is None or "ERROR collecting" in said:
        return Outcome.ERROR, f"pytest ended with {code}: {said.strip()[-400:]}"
    for one in every:
        if BROKEN.search(one[2] or ""):
            return Outcome.ERROR, f"the mutant is no program: {one[1]}: {one[2]}"
    noticed = [one[1].removeprefix("tests/") for one in every]
    missed = [one for one in mutant.each if one not in noticed]
    if missed or (mutant.tests and not set(noticed) - set(mutant.each)):
        return Outcome.SURVIVED, f"passed: {', '.join(missed or mutant.tests)}"
    return Outcome.CAUGHT, noticed[0]


# ---------------------------------------------------------------- all of them


def try_all(
    root: Path, mutants: Sequence[Mutant], packages: Mapping[str, str], *, jobs: int = 1, quiet: bool = False
) -> list[Result]:
    """In the order of `mutants`. Raises NoGroundError where the tests fail without any."""

    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    with ExitStack() as stack:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for _ in range(jobs):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
            copies.put(Copy(root, folder, packages))
        limit = _without(copies, mutants, say)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))

        def run(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                return try_one(copy, mutant, limit)
            finally:
                copies.put(copy)

        running = {pool.submit(run, mutant): mutant for mutant in mutants}
        for number, done in enumerate(as_completed(running), 1):
            one = done.result()
            say(f"{number:3}/{len(mutants)} {one.outcome:8} {one.seconds:5.0f} s  {one.mutant.name}: {one.by}")
        results = {mutant.name: done.result() for done, mutant in running.items()}
    return [results[mutant.name] for mutant in mutants]


def _without(copies: queue.SimpleQueue[Copy], mutants: Sequence[Mutant], say: Callable[[str], None]) -> float:
    """The tests without a mutant must pass; seconds that one with it may take."""
    copy, began = copies.get(), time.monotonic()
    code, said = copy.test(sorted({one for mutant in mutants for one in (*mutant.tests, *mutant.each)}), None)
    copies.put(copy)
    if code != 0:
        raise NoGroundError(f"the tests fail without any mutant (pytest ended with {code}):\n{said[-3000:]}")
    took = time.monotonic() - began
    say(f"without any mutant all named tests pass in {took:.0f} s")
    return LONGEST + PATIENCE * took


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="of topic, name or file; then nothing is written")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, each with a copy of the tree")
    parser.add_argument("--list", action="store_true", help="name them and run nothing")
    asked = parser.parse_args(arguments)
    chosen = {
        topic: [one for one in mutants if re.search(asked.only, f"{topic}: {one.name} ({one.file})")]
        for topic, mutants in MUTANTS.items()
    }
    mutants = [one for some in chosen.values() for one in some]
    if asked.list or not mutants:
        for topic, some in chosen.items():
            for one in some:
                print(f"{topic}: {one.name} ({one.file})")
        return 0 if mutants else 2
    try:
        results = try_all(ROOT, mutants, PACKAGES, jobs=asked.jobs)
    except NoGroundError as error:
        print(error, file=sys.stderr)
        return 2
    missed = [one for one in results if not one.noticed]
    for one in missed:
        print(f"{one.outcome}: {one.mutant.name} ({one.mutant.file}): {one.by}")
    print(f"{len(results)} mutants, {len(missed)} that no test noticed")
    if not asked.only:
        _write({one.mutant.name: one for one in results})
    return 1 if missed else 0


def _write(results: Mapping[str, Result]) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    import results as pages

    missed = sum(not one.noticed for one in results.values())
    parts = [
        "# Mutants",
        f"{len(results)} safety devices, each taken out alone (`make mutants`); {missed} went unnoticed. Caught by: "
        "the first test that failed. Seconds: of the tests up to there, with the start of pytest.",
        f"{pages.stamp()}; {pages.machine()}",
    ]
    for topic, mutants in MUTANTS.items():
        rows = [
            (one.name, one.why, f"`{one.file}`", _caught_by(results[one.name]), round(results[one.name].seconds))
            for one in mutants
        ]
        parts += [
            f"## {topic}",
            pages.table(["without the device", "what it guards from", "file", "caught by", "s"], rows),
        ]
    pages.write_page("mutants", "\n\n".join(parts))
    pages.add_to_summary({"mutants.total": len(results), "mutants.survived": missed})


def _caught_by(result: Result) -> str:
    if result.outcome is Outcome.CAUGHT:
        return f"`{result.by}`"
    return "hangs" if result.outcome is Outcome.HANGS else f"**{result.outcome}**"


if __name__ == "__main__":
    sys.exit(main())
