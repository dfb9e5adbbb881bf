"""What lies below a source without being its data: own output, other indexes, tables with a log, links."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dataset_files import numbers, write_parquet

from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import S3, Identity, Location, ResolveTask
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.places import no_data
from vectorindex_searcher.dataset.tombstones import list_tombstones
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT = 100


def keys(folder: Path, role: Role = Role.SOURCE) -> list[str]:
    return [item.key for item in list_source(FolderStore(folder, role)).objects]


def counted(capsys: pytest.CaptureFixture[str], *words: object) -> int:
    assert main(["build", "--factory", "Flat", *map(str, words)]) == 0
    count: int = json.loads(capsys.readouterr().out)["count"]
    return count


# ---------------------------------------------------------------- own output


@pytest.mark.parametrize("below", ["index", ""], ids=["below the source", "in its place"])
def test_a_build_does_not_read_what_builds_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    """The second build read vectors.npy of the first one as rows: 200, 400, 800."""
    np.save(tmp_path / "x.npy", numbers("<f4", COUNT))
    for factory in ("Flat", "HNSW8", "Flat"):
        words = ("--source", tmp_path, "--out", tmp_path / below, "--factory", factory)
        assert counted(capsys, *words) == COUNT
        assert counted(capsys, *words, "--name", "other") == COUNT


def test_the_artifact_of_another_index_is_no_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "x.npy", numbers("<f4", COUNT))
    artifact = tmp_path / "indexes" / "shop" / "products" / "d" / "a1"
    artifact.mkdir(parents=True)
    np.save(artifact / "vectors.npy", numbers("<f4", COUNT))
    (artifact / "ids.arrow").write_bytes(b"")  # an upload that was killed has some of the files
    with caplog.at_level(logging.WARNING):
        assert keys(tmp_path) == ["x.npy"]
    assert "artifacts of an index are not read" in caplog.text
    assert keys(artifact / "vectors.npy") == ["vectors.npy"]  # who names the file itself means it


def test_a_file_of_the_same_name_is_data(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", numbers("<f4", COUNT))
    (tmp_path / "ids.txt").write_text("notes")
    assert keys(tmp_path) == ["vectors.npy"]


def test_own_places_in_one_bucket() -> None:
    def s3(prefix: str) -> Location:
        return Location(s3=S3(bucket="shared", prefix=prefix))

    index = Identity(namespace="shop", name="products")

    def left_out(source: str, artifacts: str, **places: Location) -> tuple[str, ...]:
        return no_data(ResolveTask(identity=index, source=s3(source), artifacts=s3(artifacts), **places))

    assert left_out("", "indexes") == ("indexes", "indexes/shop/products")
    assert left_out("data/", "data/", tombstones=s3("data/gone/")) == ("data/gone", "data/shop/products")
    assert left_out("data", "database") == ()
    asked = {"tombstones": s3("data/gone/"), "queries": s3("data/asked.parquet")}
    assert left_out("data", "x", **asked) == ("data/gone", "data/asked.parquet")
    assert left_out("data", "x", queries=s3("data")) == left_out("data", "x", queries=s3("database")) == ()


@pytest.mark.parametrize("place", ["queries", "asked.parquet"])
def test_queries_below_the_source_are_no_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    """They were rows: the gate asked for what is in the index, and searches answered with queries."""
    source, rows = tmp_path / "in", numbers("<f4", COUNT)
    (source / "queries").mkdir(parents=True)
    write_parquet(source / "a.parquet", rows)
    write_parquet(source / "queries" / "a.parquet" if place == "queries" else source / place, rows[:40] + 0.5)
    words = ("--source", source, "--out", tmp_path / "out", "--queries", source / place, "--metric", "L2")
    for verb in ("resolve", "build"):
        assert main([verb, *map(str, words)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result.get("rows") or result.get("count"), result.get("objects", 1)) == (COUNT, 1)
    asked = ["validate", "--artifact", str(tmp_path / "out"), "--queries", str(source / place)]
    assert main(asked) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["overall"]["queries"], result["segments"]) == (40, [])


# ---------------------------------------------------------------- tables


def delta(folder: Path) -> None:
    (folder / "_delta_log").mkdir()
    for number, day in enumerate(("2024-01-01", "2024-01-02")):
        (folder / f"day={day}").mkdir()
        write_parquet(
            folder / f"day={day}" / "a.parquet", numbers("f4"), pa.array(range(number * 100, number * 100 + 100))
        )
        line = {"add": {"path": f"day={day}/a.parquet"}}
        (folder / "_delta_log" / f"{number:020d}.json").write_text(json.dumps(line))
    (folder / "_delta_log" / f"{2:020d}.json").write_text('{"remove": {"path": "day=2024-01-01/a.parquet"}}')


def iceberg(folder: Path) -> None:
    for name in ("data", "metadata"):
        (folder / name).mkdir()
    write_parquet(folder / "data" / "a.parquet", numbers("f4"))
    (folder / "metadata" / "00000-5f1c.metadata.json").write_text("{}")


def hudi(folder: Path) -> None:
    (folder / ".hoodie").mkdir()
    (folder / ".hoodie" / "hoodie.properties").write_text("")
    write_parquet(folder / "a.parquet", numbers("f4"))


@pytest.mark.parametrize(("make", "name"), [(delta, "Delta"), (iceberg, "Iceberg"), (hudi, "Hudi")])
@pytest.mark.parametrize("below", ["", "tables/one"])
def test_a_table_with_a_log_is_refused(tmp_path: Path, make: Callable[[Path], None], name: str, below: str) -> None:
    """Its folder holds files that the log has removed: rows came back."""
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    make(tmp_path / below)
    for read in (keys, lambda folder: list_tombstones(FolderStore(folder, Role.TOMBSTONES))):
        with pytest.raises(TaskError) as caught:
            read(tmp_path)
        assert caught.value.reason == "TableFormat"
        assert name in caught.value.failure.message
        assert "COPY" in str(caught.value.failure.remedy)


class OneFolder(FolderStore):
    """A store whose place is a folder of it, as a prefix in a bucket."""

    def __init__(self, root: Path, prefix: str) -> None:
        super().__init__(root, Role.SOURCE)
        self.prefix = prefix
        self.refused = False

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        if self.refused and not prefix.startswith(self.prefix):
            raise TaskError("AccessDenied", "no")
        return super().list(prefix)


@pytest.mark.parametrize(
    ("make", "place"), [(delta, "t/day=2024-01-01"), (delta, "t/day=2024-01-01/a.parquet"), (iceberg, "t/data")]
)
def test_a_part_of_such_a_table_is_refused_too(tmp_path: Path, make: Callable[[Path], None], place: str) -> None:
    (tmp_path / "t").mkdir()
    make(tmp_path / "t")
    store = OneFolder(tmp_path, place)
    with pytest.raises(TaskError) as caught:
        list_source(store)
    assert caught.value.reason == "TableFormat"
    store.refused = True  # who may not look around reads what it was given
    assert list_source(store).objects


def test_a_folder_named_metadata_makes_no_table(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    write_parquet(tmp_path / "metadata" / "a.parquet", numbers("f4"))
    (tmp_path / "metadata" / "notes.json").write_text("{}")
    assert keys(tmp_path) == ["metadata/a.parquet"]


# ---------------------------------------------------------------- links and names


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for folder in (source, elsewhere):
        folder.mkdir()
        write_parquet(folder / "a.parquet", numbers("f4"))
    (source / "more").symlink_to("../elsewhere")
    (source / "file.parquet").symlink_to("../elsewhere/a.parquet")
    (source / "self").symlink_to(".")
    (elsewhere / "back").symlink_to("../in")
    assert keys(source) == ["a.parquet", "file.parquet", "more/a.parquet"]
    assert keys(source / "more") == ["a.parquet", "back/a.parquet", "back/file.parquet"]


@pytest.mark.parametrize("listing", [keys, lambda folder: list_tombstones(FolderStore(folder, Role.TOMBSTONES))])
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, listing: Callable[[Path], object]) -> None:
    (tmp_path / "b.parquet").symlink_to("gone.parquet")
    write_parquet(tmp_path / "a.parquet", numbers("f4"))
    with pytest.raises(TaskError) as caught:
        listing(tmp_path)
    assert (caught.value.reason, caught.value.failure.object) == ("BrokenLink", "b.parquet")
    assert [item.key for item in FolderStore(tmp_path, Role.ARTIFACTS).list("")] == ["a.parquet"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", numbers("f4"))
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(TaskError) as caught:
        keys(tmp_path)
    assert caught.value.reason == "AccessDenied"


def test_suffixes_in_capitals_are_data(tmp_path: Path) -> None:
    """Windows and mainframes; beside files in small letters they were left out."""
    write_parquet(tmp_path / "a.parquet", numbers("f4"))
    write_parquet(tmp_path / "B.PARQUET", numbers("f4"))
    assert keys(tmp_path) == ["B.PARQUET", "a.parquet"]


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parquet(tmp_path / "a.parquet", numbers("f4"))
    for name in ("b.csv", "c.parquet.gz", "_SUCCESS", ".a.parquet.crc"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert keys(tmp_path) == ["a.parquet"]
    (said,) = [record for record in caplog.records if "other formats" in record.getMessage()]
    assert (said.objects, said.example) == (2, "b.csv")  # type: ignore[attr-defined]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A listing with such a key could not be stored: the build crashed."""
    write_parquet(tmp_path / "a.parquet", numbers("f4"))
    shutil.copy(tmp_path / "a.parquet", os.fsencode(tmp_path) + b"/\xff.parquet")
    with pytest.raises(TaskError) as caught:
        keys(tmp_path)
    assert caught.value.reason == "BadName"
    assert r"\xff.parquet" in caught.value.failure.message
