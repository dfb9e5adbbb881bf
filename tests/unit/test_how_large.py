"""docs/reference/large.md says what the code and the measured figures make, and a line of it can be checked by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import how_large
from vectorindex_operator.manifests import sizing
from vectorindex_plugin.estimate import sizes
from vectorindex_searcher.build import sharing
from vectorindex_searcher.contract import MAX_SHARDS, Embedding, IndexSpec, PartitionTask

GIB = 1 << 30
PAGE = how_large.PAGE.read_text()


def test_the_page_is_what_the_code_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_large.main(["--check"]) == 0, "run `make generate`"
    monkeypatch.setattr(how_large, "PAGE", tmp_path / "large.md")
    assert how_large.main(["--check"]) == 1


def test_measured_figures_are_those_of_the_benchmarks() -> None:
    found = how_large.measured("HNSW", 768)
    growth = json.loads((how_large.RESULTS / "summary.json").read_text())["growth.HNSW.build_per_10x"]
    assert found.build_growth == growth > 10
    lines = [line for line in (how_large.RESULTS / "rows.md").read_text().splitlines() if "x 768 | HNSW" in line]
    for figure in (found.rate, found.query_us, found.query_growth):
        assert any(f" {figure:g} " in line or f"x{figure:g} " in line for line in lines), figure
    with pytest.raises(KeyError):
        how_large.measured("HNSW", 300)


def test_a_million_rows_take_what_they_took() -> None:
    of = how_large.Measured(rate=2000.0, after=200.0, query_us=500.0, build_growth=18.0, query_growth=3.0)
    assert of.build_seconds(1_000_000) == pytest.approx(500 + 200)
    assert of.build_seconds(10_000_000) == pytest.approx(18 * 500 + 10 * 200)
    assert of.query_seconds(10_000_000) == pytest.approx(1500e-6)


@pytest.mark.parametrize("kind", ["HNSW", "IVF"])
def test_there_are_as_few_shards_as_fit(kind: str) -> None:
    plan = how_large.planned(100_000_000, kind, 768, "16Gi", 4)
    assert plan is not None
    assert plan.one.pod(4)[0] <= 16 * GIB
    fewer = -(-plan.rows // (plan.shards - 1))
    larger = sizes(how_large.factory_of(kind, fewer), fewer, 768)
    assert larger is not None
    assert larger.pod(4)[0] > 16 * GIB
    assert plan.shards * plan.share >= plan.rows


def test_what_takes_too_many_shards_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert how_large.planned(1_000_000_000, "HNSW", 768, "8Gi", 4) is None
    assert how_large.main(["--rows", "1000000000", "--memory", "8Gi"]) == 1
    assert f"takes more than {MAX_SHARDS} shards of 8Gi" in capsys.readouterr().out
    assert how_large.main(["--rows", "3000000", "--dimension", "128"]) == 0
    small = capsys.readouterr().out
    assert "| 3,000,000 | `HNSW32,SQ8` | 1 |" in small
    auto = "`index.shards: Auto` with `searcher.memoryPerShard: 16Gi` and 4 cores comes to"
    assert f"3,000,000 x 128 as `HNSW32,SQ8`: {auto} 2 shards; without shards it fits one searcher." in small
    assert how_large.main(["--rows", "100000000"]) == 0
    assert f"100,000,000 x 768 as `HNSW32,SQ8`: {auto} 7 shards." in capsys.readouterr().out


def test_the_page_counts_as_partition_does() -> None:
    """Which is told what a searcher of four cores takes besides."""
    plan = how_large.planned(how_large.ROWS[1], "HNSW")
    assert plan is not None
    task = PartitionTask.model_construct(
        index=IndexSpec(factory="HNSW32,SQ8"), embedding=Embedding(), memory_per_shard="16Gi",
        searcher_bytes=sizing.Need(0).memory(how_large.CORES)[0] << 20,
    )  # fmt: skip
    assert sharing.guessed(task, plan.rows, plan.dimension) == plan.shards


def test_the_line_by_hand_is_right_and_is_one_of_the_table() -> None:
    text = re.sub(r"\s+", " ", PAGE.partition("## A line by hand")[2].partition("\n## ")[0]).replace(",", "")
    rate, after = (float(x) for x in re.findall(r"([\d.]+) rows for each CPU second and ([\d.]+) CPU", text)[0])
    share, growth = (float(x) for x in re.findall(r"x ([\d.]+)\^log10\(([\d.]+)\)", text)[0])
    shards = int(re.findall(r"at most 16Gi: (\d+) of", text)[0])
    seconds = 1e6 / rate * share ** math.log10(growth) + after * share
    assert seconds == pytest.approx(float(re.findall(r"= ([\d.]+) CPU seconds", text)[0]), rel=0.01)
    hours = float(re.findall(r"= ([\d.]+) core hours", text)[0])
    assert shards * seconds / 3600 == pytest.approx(hours, rel=0.01)
    table = PAGE.partition("searchers of at most 16Gi\n")[2]
    (line,) = [one for one in table.splitlines()[:8] if one.startswith("| 100,000,000 | `HNSW")]
    assert f"| {shards} |" in line
    assert f"| {hours} |" in line


def test_the_short_table_of_the_guide_is_the_pages() -> None:
    guide = (how_large.CHECKOUT / "docs" / "how-large.md").read_text()
    short = re.findall(r"^\| (1[\d,]+0) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", guide, re.MULTILINE)
    assert len(short) == len(how_large.ROWS)
    for count, *cells in short:
        lines = [line for line in PAGE.splitlines() if line.startswith(f"| {count} | `HNSW")]
        wanted = dict(zip(how_large.HEAD, lines[0].strip("| ").split(" | "), strict=True))
        assert cells == [wanted[name] for name in ("shards", "their memory", "build, core hours", "CPU ms a query")]
