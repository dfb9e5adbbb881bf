"""What bench/rows.py makes of what it measured, and when it writes it down."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import build_once
import rows

BENCH = Path(rows.__file__).parent

CASE = rows.Case(
    rows=1_000_000,
    dimension=768,
    factory="IVF4096,SQ8",
    plain=rows.Spent(500.0, 5e9),
    build=rows.Spent(520.0, 2e9),
    rest=100.0,
    prove=rows.Spent(60.0, 1.5e9),
    cold=rows.Spent(4.0, wall=3.0),
    warm=rows.Spent(2.0, wall=1.5),
    serve=rows.Spent(300e-6, 1e9),
    formula=2.5e9,
    request=1.2e9,
    recall=0.97,
    searches=((100.0, 200.0), (90.0, 135.0), (110.0, 550.0)),
)


def test_the_headline_is_the_worst_of_the_factories_and_the_middle_of_the_turns() -> None:
    other = replace(CASE, build=rows.Spent(625.0, 1e9), searches=((100.0, 120.0),))
    assert rows.headline([CASE, other]) == pytest.approx(
        {
            "rows_1m_768.build_rate_share": 500 / 625,
            "rows_1m_768.peak_memory_share": 1e9 / 1.2e9,
            "rows_1m_768.search_per_10x": 2.0,
        }
    )
    small = replace(CASE, dimension=128, build=rows.Spent(400.0, 2.4e9))
    assert rows.headline([CASE, small])["rows_1m_128.build_rate_share"] == pytest.approx(1.25)
    assert rows.headline([CASE, small])["rows_1m_128.peak_memory_share"] == pytest.approx(0.96)


def test_the_page_has_a_line_for_each_case_in_both_tables() -> None:
    text = rows.page([CASE, replace(CASE, dimension=128)])
    for data in ("1,000,000 x 768", "1,000,000 x 128"):
        assert text.count(f"| {data} | IVF4096,SQ8 |") == 2
    assert "| 1923 |" in text.replace("1.92e+03", "1923")
    assert "| x2.00 |" in text


@pytest.mark.parametrize(
    ("flags", "cases", "written"),
    [
        ((), [(1_000_000, 128), (1_000_000, 128), (1_000_000, 768), (1_000_000, 768)], True),
        (("--quick",), [(50_000, 32)], False),
        (("--dimensions", "768"), [(1_000_000, 768)] * 2, False),
        (("--factories", "IVF"), [(1_000_000, 128), (1_000_000, 768)], False),
    ],
)
def test_only_a_whole_run_writes_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, ...], cases: list[tuple[int, int]], written: bool
) -> None:
    """One of few rows, or of a part of the cases, would be taken for it."""
    measured: list[tuple[int, int]] = []
    told: dict[str, object] = {}

    def measure(pattern: str, size: int, dimension: int, seconds: float) -> rows.Case:
        measured.append((size, dimension))
        return replace(CASE, rows=size, dimension=dimension, factory=pattern)

    monkeypatch.setattr(rows, "measure", measure)
    monkeypatch.setattr(rows, "FOLDER", tmp_path)
    monkeypatch.setattr(rows.results, "write_page", told.setdefault)
    monkeypatch.setattr(rows.results, "add_to_summary", told.update)
    monkeypatch.setattr(sys, "argv", ["rows.py", *flags])
    rows.main()
    assert measured == cases
    assert {"rows", "rows_1m_768.build_rate_share", "rows_1m_128.search_per_10x"} <= told.keys() or not written
    assert written or not told


OURS = {
    "drawing", "scanning", "tuning", "publishing", "importing", "encoding rows", "sharing out rows", "reranking",
    "reconstructing", "reconstructing rows",
}  # fmt: skip
"""Steps that a script has not."""


def test_a_build_is_compared_by_the_steps_that_a_script_has_too(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "".join(path.read_text() for path in (BENCH.parent / "searcher").rglob("*.py"))
    steps = set(re.findall(r'\b(?:step|Progress)\("([a-z ]+)"', code))
    assert steps - set(build_once.LIKE_THE_SCRIPT) == OURS
    assert set(build_once.LIKE_THE_SCRIPT) - steps == {""}
    clock = iter([10.0, 11.0, 13.0, 13.5, 14.0])
    monkeypatch.setattr(build_once, "time", SimpleNamespace(process_time=lambda: next(clock)))
    now = build_once.ByStep()
    for name in ("training", "tuning", "training", ""):
        now.step = name
    assert now.seconds == {"": 1.0, "training": 2.5, "tuning": 0.5}
