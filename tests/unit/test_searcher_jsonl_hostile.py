"""JSON lines of hostile shape: what they take while the types are looked for, measured in a process of its own."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cost import in_a_process_of_its_own

from vectorindex_searcher.contract import Columns, Embedding, Metric
from vectorindex_searcher.dataset import jsonl
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.source import open_source
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

MEASURE = """
import sys
from pathlib import Path
import test_searcher_jsonl_hostile as test
from cost import memory
test.read(Path(sys.argv[1]) / "small")
before = memory("VmHWM")
try:
    test.read(Path(sys.argv[1]) / "large", *("tags",) * (sys.argv[1][-1] == "d"))
except test.TaskError as error:
    assert error.reason in ("CorruptFile", "BadColumnType", "BadLine"), error
print(memory("VmHWM") - before)
"""
LINE = '{"id":%d,"vector":[1,2],"tags":null,"other":%s}\n'
SHAPES = {
    "empty lists": "[" + "[]," * 400_000 + "[]]",
    "objects": "[" + '{"a":{}},' * 400_000 + "{}]",
}


def read(folder: Path, *metadata: str) -> int:
    """Rows read, by the way of a build."""
    store = FolderStore(folder, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=metadata), Embedding(metric=Metric.L2))
    return sum(len(block.vectors) for block in source.blocks())


def write(folder: Path, count: int, other: str, first: str = "0") -> None:
    folder.mkdir()
    with gzip.open(folder / "a.jsonl.gz", "wt", 1) as file:
        for number in range(count):
            file.write(LINE % (number, other if number else first))


@pytest.mark.parametrize("field", ["other", "tags"])
@pytest.mark.parametrize("shape", SHAPES)
def test_lines_take_little_memory_whatever_their_fields_hold(tmp_path: Path, shape: str, field: str) -> None:
    """Kept as Python objects, twelve of them took 1.4 GB; `tags` is a field that is asked for."""
    root = tmp_path / ("wanted" if field == "tags" else "unasked-")
    root.mkdir()
    write(root / "small", 3, "0")
    text = SHAPES[shape]
    write(root / "large", 20, text)
    if field == "tags":
        path = root / "large" / "a.jsonl.gz"
        swapped = gzip.decompress(path.read_bytes()).replace(b'"tags"', b'"_"').replace(b'"other"', b'"tags"')
        path.write_bytes(gzip.compress(swapped, 1))
    assert int(in_a_process_of_its_own(MEASURE, root)) < 250 << 20


def test_long_lines_settle_types_by_fewer_lines_and_what_comes_later_is_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "TYPED_BYTES", 100)
    rows = [f'{{"id": {number}, "vector": [1, 2], "n": {number}}}' for number in range(50)]
    rows += ['{"id": 50, "vector": [1, 2], "n": 2.5, "late": ["a"]}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    store = FolderStore(tmp_path, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=("n",)), Embedding(metric=Metric.L2))
    assert [value for block in source.blocks() for value in block.metadata.column("n").to_pylist()] == [*range(50), 2.5]


def test_a_first_line_of_more_commas_than_a_vector_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", 2, "0", "[" + "[]," * 1_300_000 + "[]]")
    with pytest.raises(TaskError, match="commas") as caught:
        read(tmp_path / "in")
    assert caught.value.reason == "CorruptFile"
