"""`partition` with as many shards as fit the memory of one: the number, where it lies, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.artifact.sharded import find_plan
from vectorindex_searcher.artifact.whole import publish_whole
from vectorindex_searcher.build import partition as partition_module
from vectorindex_searcher.build import sharing
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.partition import partition
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    PartitionTask,
    PublishTask,
    Shard,
    memory_bytes,
)
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.index.choose.choice import Choice
from vectorindex_searcher.index.factory import make_index
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

ROWS, DIMENSION = 2000, 16
FLAT = 4 * DIMENSION * ROWS
"""Bytes of all vectors."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer queries and shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr(build_module, "HELD_OUT", 30)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)


def source(folder: Path, rows: int = ROWS, title: int = 0) -> Path:
    """title: bytes of metadata of each row."""
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(3).standard_normal((rows, DIMENSION)).astype(np.float32)
    columns: dict[str, Any] = {"id": range(rows), "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))}
    columns |= {"title": ["t" * title] * rows} if title else {}
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return folder


class Place:
    def __init__(self, root: Path, given: Path, factory: str = "Flat", **columns: Any) -> None:
        self.root = root
        root.mkdir()
        self.common: dict[str, Any] = {
            "identity": Identity(namespace="shop", name="products", uid="u-1"),
            "digest": "d1",
            "artifacts": Location(folder=str(root)),
        }
        self.building = self.common | {
            "source": Location(folder=str(given)),
            "columns": Columns(**columns),
            "index": IndexSpec(factory=factory),
        }

    def partition(self, memory: int, **more: Any) -> Any:
        asked = {"shards": "Auto", "memory_per_shard": str(memory)} | more
        return partition(PartitionTask(**self.building, **asked))

    def build_all(self, shards: int) -> Any:
        for number in range(shards):
            build(BuildTask(**self.building, shard=Shard(number=number, of=shards)))
        return publish_whole(PublishTask(**self.common))


def test_there_are_the_fewest_shards_of_which_each_fits(tmp_path: Path) -> None:
    place, memory = Place(tmp_path / "out", source(tmp_path / "rows")), FLAT // 2
    found = place.partition(memory)
    assert found.shards == len(found.counts) > 2, "ids and what filters keep are counted, too"
    whole = place.build_all(found.shards)
    assert whole.shards == found.shards
    assert whole.resident_bytes <= memory, "of the largest"
    share = sharing.largest_share(ROWS, found.shards - 1)
    one = sharing.held_bytes(make_index("Flat", share, DIMENSION, Metric.COSINE), share, 8 * share)
    assert one is not None
    assert one + 1024 > memory, "one shard less is too few, with what a file of ids has besides ids"


def test_what_a_searcher_takes_besides_is_not_for_rows(tmp_path: Path) -> None:
    rows = source(tmp_path / "rows")
    few = Place(tmp_path / "a", rows).partition(FLAT)
    more = Place(tmp_path / "b", rows).partition(FLAT, searcher_bytes=FLAT // 2)
    assert more.shards > few.shards


def test_metadata_counts_once_it_is_seen(tmp_path: Path) -> None:
    """The first sharing out does not know of it, the second one is for the number that it takes."""
    plain = Place(tmp_path / "a", source(tmp_path / "plain")).partition(FLAT)
    place = Place(tmp_path / "b", source(tmp_path / "long", title=200), metadata=("title",))
    found = place.partition(FLAT)
    assert found.shards > plain.shards
    assert sum(found.counts) == ROWS
    assert place.build_all(found.shards).resident_bytes <= FLAT


def test_a_small_index_is_in_two(tmp_path: Path) -> None:
    assert Place(tmp_path / "out", source(tmp_path / "rows")).partition(1 << 30).shards == 2


def test_the_number_lies_in_the_plan_and_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a try that goes on from a plan whose rows are not all there: what it computes is no matter then."""
    place = Place(tmp_path / "out", source(tmp_path / "rows"))
    found = place.partition(FLAT // 2)
    layout = partition_module.Layout("", place.common["identity"])
    plan = find_plan(FolderStore(place.root, Role.ARTIFACTS), layout, "d1")
    assert plan is not None
    assert plan[0].shards == found.shards
    monkeypatch.setattr(sharing, "needed", lambda *_: 7)
    (place.root / layout.of_shard(1).rows("d1")).unlink()
    again = place.partition(FLAT // 2)
    assert (again.shards, again.plan_sha256, again.reused) == (found.shards, found.plan_sha256, False)
    assert place.partition(FLAT // 2).reused


def test_another_process_that_came_to_another_number_is_followed_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, chosen = Place(tmp_path / "out", source(tmp_path / "rows")), partition_module._chosen

    def slow(task: Any, *rest: Any) -> Any:
        monkeypatch.setattr(partition_module, "_chosen", chosen)
        assert place.partition(FLAT // 4).shards > 3
        return chosen(task, *rest)

    monkeypatch.setattr(partition_module, "_chosen", slow)
    with pytest.raises(TaskError) as caught:
        place.partition(1 << 30)
    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.RETRY, "LeftoverPart")
    assert place.partition(1 << 30).shards > 3


def test_what_auto_chooses_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are shared out for a guess; what is chosen may take another number, and lists for so many rows."""
    asked: list[int] = []

    def decide(spec: Any, folder: Path, metric: Metric, memory: int = 0) -> Choice:
        asked.append(len(list(folder.parent.iterdir())))
        return Choice("IVF16,Flat", (), "")

    place = Place(tmp_path / "out", source(tmp_path / "rows"), factory="Auto")
    with monkeypatch.context() as patched:
        patched.setattr(partition_module.recipe, "decide", decide)
        found = place.partition(FLAT // 4)
    assert len(asked) == 1, "the trials are not run twice"
    assert found.shards != asked[0]
    assert found.factory == sharing.for_rows("IVF16,Flat", ROWS // asked[0], max(found.counts))
    assert place.build_all(found.shards).resident_bytes <= FLAT // 4


def test_lists_go_with_the_rows_and_other_kinds_stay() -> None:
    assert sharing.for_rows("HNSW32,SQ8", 1000, 10**6) == "HNSW32,SQ8"
    assert sharing.for_rows("IVF1024,SQ8", 10**6, 10**6) == "IVF1024,SQ8"
    assert sharing.for_rows("IVF1024,SQ8", 10**6, 16 * 10**6) == "IVF4096,SQ8"


def test_beyond_64_shards_it_says_how_much_memory_would_do(tmp_path: Path) -> None:
    place = Place(tmp_path / "out", source(tmp_path / "rows"))
    with pytest.raises(TaskError) as caught:
        place.partition(1000)
    failure = caught.value.failure
    assert (failure.reason, failure.field) == ("TooManyShards", "spec.searcher.memoryPerShard")
    assert "memoryPerShard is 1000" in failure.message
    assert "2,000 rows of 16 numbers as 'Flat' take more than 64 shards" in failure.message
    assert failure.remedy is not None
    assert "1Mi or more" in failure.remedy
    assert not (place.root / "shop").exists() or not list(place.root.rglob("plan.json"))


def test_what_has_no_formula_needs_a_number(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        Place(tmp_path / "out", source(tmp_path / "rows"), factory="NSG8").partition(FLAT)
    assert (caught.value.reason, caught.value.failure.field) == ("NoFormula", "spec.index.shards")


def test_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = source(tmp_path / "rows"), tmp_path / "out"
    out.mkdir()
    common = ["--source", str(rows), "--out", str(out), "--factory", "Flat"]
    auto = [*common, "--shards", "auto", "--memory-per-shard"]
    assert main(["partition", *auto, str(FLAT // 2)]) == 0
    found = json.loads(capsys.readouterr().out)
    for number in range(found["shards"]):
        one = [*common, "--digest", found["digest"], "--shard", f"{number}/{found['shards']}"]
        assert main(["build", *one]) == 0
    assert main(["publish", "--artifact", str(out)]) == 0
    capsys.readouterr()
    for wrong in ("1", "65", "some", ""):
        assert main(["partition", *common, "--shards", wrong]) == ExitCode.BAD_SPEC
    assert main(["partition", *auto, "much"]) == ExitCode.BAD_SPEC
    assert "--memory-per-shard" in capsys.readouterr().err
    assert main(["partition", *auto, "1000"]) == ExitCode.BAD_SPEC
    assert json.loads(capsys.readouterr().out)["field"] == "--memory-per-shard"


def test_the_largest_share_is_never_more_than_all() -> None:
    assert sharing.largest_share(10, 2) == 10
    assert 500_000 < sharing.largest_share(10**6, 2) < 505_000
    assert memory_bytes("16Gi") == 16 << 30
