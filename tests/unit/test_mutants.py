"""The table of mutants fits the code of today, and the program that tries them tells caught from survived."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mutants
import pytest
from mutant_table import MUTANTS, Mutant
from mutant_table.mutant import kept, seeds
from mutants import ROOT, NoGroundError, Outcome, try_all
from simulator.kept_seeds import KEPT_SEEDS
from simulator.scenarios import SCENARIOS

ALL = [one for some in MUTANTS.values() for one in some]
FEWEST = 30


def without(mutant: Mutant) -> dict[str, str]:
    """The mutated files, by name."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        text = texts.get(edit.file) or (ROOT / edit.file).read_text()
        assert text.count(edit.find) == 1, f"{mutant.name}: {edit.file} has its text {text.count(edit.find)} times"
        assert edit.replace != edit.find
        texts[edit.file] = text.replace(edit.find, edit.replace)
    return texts


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(ALL) >= FEWEST
    assert [name for name, times in Counter(one.name for one in ALL).items() if times > 1] == []


@pytest.mark.parametrize("mutant", ALL, ids=lambda one: one.name)
def test_a_mutant_fits_the_code_and_names_tests_that_are_there(mutant: Mutant) -> None:
    for text in without(mutant).values():
        ast.parse(text)
    assert mutant.tests or mutant.each
    assert mutant.why.endswith(".")
    for one in (*mutant.tests, *mutant.each):
        name, _, function = one.partition("::")
        path = ROOT / "tests" / name
        assert path.is_file(), name
        if function:
            assert f"def {function.partition('[')[0]}(" in path.read_text(), one


def test_a_mutant_names_nothing_that_is_not_there(tmp_path: Path) -> None:
    """Steps of a pass catch what is raised in them: such a mutant would be noticed for being no program."""
    for number, mutant in enumerate(ALL):
        for at, text in enumerate(without(mutant).values()):
            (tmp_path / f"mutant_{number}_{at}.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821,F823", tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_each_scenario_of_the_simulator_notices_a_device_that_is_missing() -> None:
    """By itself: what is named with others in `tests` may never have been the one that failed."""
    alone = {one.tests[0] for one in ALL if len(one.tests) == 1} | {test for one in ALL for test in one.each}
    assert [name for name in SCENARIOS if seeds(name) not in alone] == []
    assert [name for name in KEPT_SEEDS if kept(name) not in alone] == []


# ---------------------------------------------------------------- the program itself

GUARD = "def most(asked: int) -> int:\n    return min(asked, 10)\n"
TESTS = """from tiny.guard import most


def test_little():
    assert most(3) == 3


def test_much():
    assert most(1000) == 10
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a package of one device, and its tests."""
    files = {
        "lib/tiny/__init__.py": "",
        "lib/tiny/guard.py": GUARD,
        "tests/test_guard.py": TESTS,
        "pyproject.toml": "",
        ".gitignore": "secret\n",
        "secret": "left out",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def no_bound(*tests: str, replace: str = "asked", name: str = "no bound", each: tuple[str, ...] = ()) -> Mutant:
    return Mutant(name, "lib/tiny/guard.py", "min(asked, 10)", replace, tests, "Nothing is bounded.", each=each)


def test_caught_survived_and_broken_are_told_apart(tree: Path) -> None:
    much, little = "test_guard.py::test_much", "test_guard.py::test_little"
    tried = {
        "caught": no_bound(little, much),
        "survived": no_bound(little, name="survived"),
        "no program": no_bound(little, replace="asked + nothing", name="no program"),
        "no test": no_bound("test_guard.py", replace="asked\nimport nothing_there", name="no test"),
    }
    told = try_all(tree, list(tried.values()), {"tiny": "lib"}, jobs=2, quiet=True)
    found = dict(zip(tried, told, strict=True))
    assert {name: one.outcome for name, one in found.items()} == {
        "caught": Outcome.CAUGHT,
        "survived": Outcome.SURVIVED,
        "no program": Outcome.ERROR,
        "no test": Outcome.ERROR,
    }
    assert found["caught"].by == "test_guard.py::test_much"
    assert [one.noticed for one in told] == [True, False, False, False]
    assert (tree / "lib/tiny/guard.py").read_text() == GUARD, "the checkout itself is never touched"


def test_where_each_test_must_notice_one_that_does_is_not_enough(tree: Path) -> None:
    much, little = "test_guard.py::test_much", "test_guard.py::test_little"
    tried = [
        no_bound(each=(much,)),
        no_bound(each=(much, little), name="one of two"),
        no_bound(little, each=(much,), name="not by its own test"),
    ]
    told = try_all(tree, tried, {"tiny": "lib"}, quiet=True)
    assert [one.outcome for one in told] == [Outcome.CAUGHT, Outcome.SURVIVED, Outcome.SURVIVED]
    assert little in told[1].by


def test_a_mutant_that_never_ends_is_noticed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "LONGEST", 0.0)
    endless = no_bound("test_guard.py::test_little", replace="[one for one in iter(int, 1)]")
    (told,) = try_all(tree, [endless], {"tiny": "lib"}, quiet=True)
    assert (told.outcome, told.noticed) == (Outcome.HANGS, True)


def test_tests_that_fail_by_themselves_catch_nothing(tree: Path) -> None:
    (tree / "tests/test_guard.py").write_text(TESTS.replace("== 10", "== 11"))
    with pytest.raises(NoGroundError, match="without any mutant"):
        try_all(tree, [no_bound("test_guard.py")], {"tiny": "lib"}, quiet=True)


def test_packages_of_another_place_are_found_out(tree: Path) -> None:
    with pytest.raises(NoGroundError, match="imported from"):
        try_all(tree, [no_bound("test_guard.py")], {"json": "lib"}, quiet=True)


def test_what_git_does_not_know_of_is_not_copied(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = mutants.Copy(tree, tmp_path_factory.mktemp("copy"), {"tiny": "lib"})
    assert sorted(path.name for path in copy.folder.iterdir()) == [".gitignore", "lib", "pyproject.toml", "tests"]
