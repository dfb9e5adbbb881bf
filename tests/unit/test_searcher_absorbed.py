"""Fresh rows in the next build: which files a listing takes in, whose row of one id stays, what names the state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import lines, write_parquet

from vectorindex_searcher.artifact.fresh import Refusal, Snapshot, publish
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    ResolveResult,
    ResolveTask,
    Volume,
)
from vectorindex_searcher.dataset.fresh import list_fresh
from vectorindex_searcher.dataset.listing import list_source, load_listing
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.dataset.source import open_source
from vectorindex_searcher.index.rows import Ids
from vectorindex_searcher.storage import store as store_module
from vectorindex_searcher.storage.store import Role, open_store

IDENTITY = Identity(namespace="n", name="docs", uid="u")
SOURCE = Location(volume=Volume(claim_name="v", path="rows/"))
FRESH = Location(volume=Volume(claim_name="v", path="fresh/"))
ARTIFACTS = Location(volume=Volume(claim_name="v", path="built/"))
PLACES: dict[str, Any] = {"identity": IDENTITY, "source": SOURCE, "artifacts": ARTIFACTS}
COLUMNS = Columns(metadata=("of",))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows 0 to 99 of the source: vector [n, 1], and whose they are."""
    monkeypatch.setattr(store_module, "mount_dir", lambda prefix: str(tmp_path))
    for name in ("rows", "fresh", "built"):
        (tmp_path / name).mkdir()
    put(tmp_path / "rows" / "a.jsonl", range(100), "source", 0)
    return tmp_path


def put(path: Path, ids: Any, of: str, at: float) -> None:
    """Rows whose vector begins with their id, stored at a time."""
    ids = list(ids)
    vectors = np.array([[one, at + 1] for one in ids], np.float32).reshape(len(ids), 2)
    path.write_bytes(lines(vectors, ids, of=[of] * len(ids)))
    os.utime(path, (1000 + at, 1000 + at))


def listed(**more: Any) -> ResolveResult:
    return resolve(ResolveTask(**PLACES, columns=COLUMNS, fresh=FRESH, **more))


def built(root: Path, found: ResolveResult, **more: Any) -> dict[int, str]:
    """Whose row of each id is in the artifact of this listing."""
    task = BuildTask(
        **PLACES,
        digest=found.fingerprint,
        fingerprint=found.fingerprint,
        columns=COLUMNS,
        embedding=Embedding(metric=Metric.L2),
        index=IndexSpec(factory="Flat"),
        **more,
    )
    build(task)
    (folder,) = (root / "built/n/docs" / found.fingerprint).glob("*/ids.arrow")
    ids = Ids(folder)
    names = pa.ipc.open_file(folder.with_name("metadata.arrow")).read_all().column("of").to_pylist()
    numbers: Any = ids(np.arange(len(names)))
    return dict(zip(numbers, names, strict=True))


def test_without_fresh_files_a_listing_is_what_it_was(root: Path) -> None:
    alone = resolve(ResolveTask(**PLACES, columns=COLUMNS))
    assert listed() == alone
    assert (alone.source, alone.fresh) == (None, None)
    stored = (root / "built/n/docs/listings" / f"{alone.fingerprint}.json").read_text()
    assert "fresh" not in stored, "images of before read it"


def test_a_build_takes_in_what_the_listing_names(root: Path) -> None:
    put(root / "fresh/1.jsonl", [7, 100], "first", 1)
    put(root / "fresh/2.jsonl", [100, 101], "second", 2)
    found = listed()
    assert (found.fresh, found.objects, found.source) == (
        2,
        1,
        resolve(ResolveTask(**PLACES, columns=COLUMNS)).fingerprint,
    )
    put(root / "fresh/3.jsonl", [7], "third", 3)
    rows = built(root, found)
    assert len(rows) == 102
    assert {one: rows[one] for one in (6, 7, 100, 101)} == {6: "source", 7: "first", 100: "second", 101: "second"}


def test_of_rows_with_one_id_the_newest_stays_whatever_the_names_say(root: Path) -> None:
    put(root / "fresh/z.jsonl", [5], "older", 1)
    put(root / "fresh/a.jsonl", [5, 6, 5], "newer", 2)
    found = listed()
    rows = built(root, found)
    assert (rows[5], rows[6], len(rows)) == ("newer", "newer", 100)
    os.utime(root / "fresh/z.jsonl", (2000, 2000))
    again = listed()
    assert again.fingerprint != found.fingerprint
    assert built(root, again)[5] == "older"


def test_each_state_of_the_files_has_a_name_of_its_own(root: Path) -> None:
    names = {listed().fingerprint}
    for step in (1, 2):
        put(root / f"fresh/{step}.jsonl", [100 + step], "x", step)
        names.add(listed().fingerprint)
    put(root / "rows/b.jsonl", [200], "source", 9)
    names.add(listed().fingerprint)
    assert len(names) == 4
    assert listed().fingerprint in names


def test_a_malformed_file_is_left_out_and_holds_nothing_up(root: Path) -> None:
    put(root / "fresh/good.jsonl", [100], "good", 1)
    (root / "fresh/_SUCCESS").write_text("")
    (root / "fresh/note.txt").write_text("hello")
    (root / "fresh/long.jsonl").write_text('{"id": 1, "vector": [1, 2, 3], "of": "x"}\n')
    (root / "fresh/nan.jsonl").write_text('{"id": 1, "vector": [1, 1e300], "of": "x"}\n')
    (root / "fresh/text.jsonl").write_text('{"id": "a", "vector": [1, 2], "of": "x"}\n')
    (root / "fresh/bare.jsonl").write_text('{"id": 1, "vector": [1, 2]}\n')
    (root / "fresh/other.jsonl").write_text('{"id": 1, "vector": [1, 2], "of": {"a": 1}}\n')
    (root / "fresh/half.parquet").write_bytes(b"PAR1junk")
    write_parquet(root / "fresh/plain.parquet", np.ones((2, 2), "<f4"))
    (root / "fresh/empty.jsonl").write_text("")
    (root / "fresh/lost.jsonl").symlink_to(root / "nothing.jsonl")
    (root / "fresh/shop/_delta_log").mkdir(parents=True)
    (root / "fresh/shop/_delta_log/0.json").write_text("{}")
    put(root / "fresh/shop/old.jsonl", [101], "table", 2)
    found = listed()
    listing = load_listing(open_store(ARTIFACTS, Role.ARTIFACTS), Layout("built", IDENTITY), found.fingerprint)
    assert listing is not None
    assert listing.fresh is not None
    assert [item.key for item in listing.fresh if item.size] == ["fresh/good.jsonl"]
    assert built(root, found)[100] == "good"


def test_what_searchers_alone_can_see_is_left_out_by_their_word(root: Path) -> None:
    """Vectors of another model have the right dimension, and no listing has a model."""
    for step, name in enumerate(("model", "lengths", "columns", "good", "late"), 1):
        put(root / f"fresh/{name}.jsonl", [100 + step], name, step)
    artifacts = open_store(ARTIFACTS, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, IDENTITY)
    there = {one.key: one for one in list_fresh(open_store(FRESH, Role.FRESH)) if "late" not in one.key}

    def refused(name: str, reason: str, etag: str = "") -> Refusal:
        return Refusal(key=f"fresh/{name}.jsonl", etag=etag or there[f"fresh/{name}.jsonl"].etag, reason=reason)

    said = (
        refused("model", "AnotherModel"),
        refused("lengths", "UnusualLengths"),
        refused("columns", "UnknownColumn"),  # beside the artifact: the source has that column by now
        refused("good", "AnotherModel", etag="of what was there before"),
    )
    publish(artifacts, layout, Snapshot(number=3, files=tuple(there.values()), refused=said))
    listing = load_listing(artifacts, layout, listed().fingerprint)
    assert listing is not None
    assert [one.key for one in listing.fresh or ()] == ["fresh/columns.jsonl", "fresh/good.jsonl"], (
        "what nobody has looked at yet waits"
    )
    path = root / "built/n/docs/fresh" / Path(layout.fresh(3)).name
    path.write_text("{")
    assert listed().fresh == 5, "a damaged snapshot holds no build up"


@pytest.fixture
def typed(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What `resolve` or `build` of a person answers, of the same folders."""

    def run(verb: str, *flags: str, code: int = 0) -> dict[str, Any]:
        places = ("--source", str(root / "rows"), "--out", str(root / "built"), "--metadata", "of", "--metric", "L2")
        capsys.readouterr()
        assert main([verb, *places, *flags]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out or "{}")
        return found

    return run


def test_by_hand_a_build_takes_in_the_same(root: Path, typed: Callable[..., dict[str, Any]]) -> None:
    put(root / "fresh/1.jsonl", [7, 100], "fresh", 1)
    flags = ("--fresh", str(root / "fresh"))
    listing = typed("resolve", *flags)
    assert (listing["rows"], listing["fresh"]) == (100, 1)
    assert "fresh" not in typed("resolve")
    one, other = typed("build", "--factory", "Flat"), typed("build", "--factory", "Flat", *flags)
    assert (one["count"], other["count"]) == (100, 101)
    assert one["digest"] != other["digest"]
    (found,) = (root / "built/local/index" / other["digest"]).rglob("metadata.arrow")
    assert pa.ipc.open_file(found).read_all().column("of").to_pylist().count("fresh") == 2
    for more in (("--text-column", "of"), ("--import-index", "a")):
        typed("build", *flags, *more, code=ExitCode.BAD_SPEC)


def test_deleted_ids_are_left_out_of_both(root: Path) -> None:
    put(root / "fresh/1.jsonl", [7, 100, 101], "fresh", 1)
    (root / "gone").mkdir()
    (root / "gone/a.txt").write_text("8\n7\n100\n")
    gone = Location(volume=Volume(claim_name="v", path="gone/"))
    rows = built(root, listed(), tombstones=gone)
    assert not {7, 8, 100} & set(rows)
    assert (rows[9], rows[101], len(rows)) == ("source", "fresh", 99)


def test_parquet_beside_lines_and_a_wider_column(root: Path) -> None:
    table = pa.table({"id": [100], "vector": [[1.0, 2.0]], "of": pa.array(["p"]).dictionary_encode()})
    pq.write_table(table, root / "fresh/1.parquet")
    assert built(root, listed())[100] == "p"


def test_rows_are_named_where_they_lie(root: Path) -> None:
    put(root / "fresh/1.jsonl", [3, 100], "fresh", 1)
    store = open_store(SOURCE, Role.SOURCE)
    listing = load_listing(open_store(ARTIFACTS, Role.ARTIFACTS), Layout("built", IDENTITY), listed().fingerprint)
    assert listing is not None
    source = open_source(store, list_source(store), COLUMNS, Embedding(metric=Metric.L2)).with_fresh(
        listing.fresh or ()
    )
    assert source.rows == 101
    assert source.locate(3) == ("rows/a.jsonl", 4)
    assert [source.locate(row) for row in (99, 100)] == [("fresh/1.jsonl", 0), ("fresh/1.jsonl", 1)]
    ids = [one for block in source.blocks() if block.ids is not None for one in block.ids.to_pylist()]
    assert ids == [*range(3), *range(4, 100), 3, 100]
