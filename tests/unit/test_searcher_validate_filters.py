"""Filters travel with gate queries: each is measured among the rows that its filter keeps, in a class of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.artifact.inspection import report_lines, verdicts
from vectorindex_searcher.artifact.layout import CANARY_FILE, VECTORS_FILE, Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.artifact.publish import download_verified
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    SAME_AS_A_ROW,
    WITH_A_FILTER,
    BuildTask,
    Columns,
    Embedding,
    Identity,
    IndexSpec,
    Location,
    Metric,
    QueryColumns,
    SegmentRecall,
    ValidateTask,
)
from vectorindex_searcher.errors import BadData, BadSpec, TaskError
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.selection.restricted import Costs, Restricted
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.index.vectors import VectorFile
from vectorindex_searcher.proof import filtered_queries
from vectorindex_searcher.proof.canary import read_canary
from vectorindex_searcher.proof.page import page
from vectorindex_searcher.proof.report import Report, load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION, K = 2000, 12, 10
IDENTITY = Identity(name="n")
FACTORIES = {"ivf": ("IVF32,Flat", {"nprobe": 2}), "graph": ("HNSW4,Flat", {"efSearch": 12}), "flat": ("Flat", {})}
HOME, BIG = '{"section": "home"}', '{"size": {"gte": 100, "lt": 130}}'
Floats = npt.NDArray[np.float32]


def sections() -> list[str]:
    return [("home", "garden", "attic")[(number % 10 > 5) + (number % 10 > 8)] for number in range(COUNT)]


def keeps(text: str | None) -> npt.NDArray[np.int64]:
    """The rows that the filters of these tests keep, by hand."""
    if text is None:
        return np.arange(COUNT)
    if text == HOME:
        return np.flatnonzero(np.array(sections()) == "home")
    return np.arange(100, 130)


def random(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)


DATA = random(COUNT, 0)


def table(vectors: Floats, **columns: Any) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    return pa.table({"vector": column, **columns})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def quick(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vectorindex_searcher.build.task.HELD_OUT", 40)
    patch.setattr("os.sched_getaffinity", lambda pid: {0})
    patch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 2)
    patch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 2)
    patch.setattr("vectorindex_searcher.proof.filtered.LATENCY_CALLS", 2)
    # The same way every time: many rows by the index itself, few by a scan.
    patch.setattr(Restricted, "costs", lambda restricted, queries: Costs(search=10, scan=0.1, gather=0.1))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of each of FACTORIES over rows with a section and a size."""
    root = tmp_path_factory.mktemp("filters")
    (root / "in").mkdir()
    rows = table(DATA, id=np.arange(COUNT), section=sections(), size=np.arange(COUNT))
    pq.write_table(rows, root / "in" / "a.parquet")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        for digest, (factory, params) in FACTORIES.items():
            made(root, digest, IndexSpec(factory=factory, search_params=params))
    return root


def made(root: Path, digest: str, index: IndexSpec, metadata: tuple[str, ...] = ("section", "size")) -> None:
    build(
        BuildTask(
            identity=IDENTITY,
            digest=digest,
            source=Location(folder=str(root / "in")),
            columns=Columns(metadata=metadata),
            artifacts=Location(folder=str(root / "out")),
            index=index,
            embedding=Embedding(metric=Metric.L2),
        )
    )


def gate(place: Path, queries: Path, vectors: Floats | None, digest: str = "ivf", **columns: Any) -> Report:
    """The report of these queries, or of those in the folder. `only`: filters, `kind`: segments, `right`: labels."""
    if vectors is not None:
        pq.write_table(table(vectors, **columns), queries / "queries.parquet")
    named = {"only": "filter", "kind": "segment", "right": "relevant"}
    task = ValidateTask(
        identity=IDENTITY,
        digest=digest,
        manifest_sha256="",
        gate_hash=queries.name.replace("_", "-")[-60:],
        artifacts=Location(folder=str(place / "out")),
        queries=Location(folder=str(queries)),
        query_columns=QueryColumns(**{named[name]: name for name in columns}),
        segments=("fr",),
        k=K,
    )
    validate(task)
    return load_report(*stored(place), digest, task.gate_hash)[0]


def stored(place: Path) -> tuple[FolderStore, Layout]:
    store = FolderStore(place / "out", Role.ARTIFACTS)
    return store, Layout(store.prefix, IDENTITY)


def canary(place: Path, report: Report) -> pa.Table:
    store, layout = stored(place)
    return read_canary(store.root / layout.report(report.digest, report.gate_hash, CANARY_FILE))


def by_hand(place: Path, digest: str, vectors: Floats, filters: list[str | None]) -> list[float]:
    """Recall of each query: what the engine answers among the rows that are kept, against all their distances."""
    manifest, _ = load_manifest(*stored(place), digest)
    names = [file.name for file in manifest.files]
    folder = download_verified(*stored(place), manifest, place / f"cache-{digest}", names)
    engine = Engine.open(folder, manifest)
    with VectorFile(folder / VECTORS_FILE, Metric.L2) as file:
        data = file.raw(0, COUNT).copy()
    ids = np.array(engine.ids(np.arange(COUNT)))
    found = []
    for query, text in zip(vectors, filters, strict=True):
        mine = np.flatnonzero(np.isin(ids, keeps(text)))
        nearest = mine[np.argsort(((data[mine] - query) ** 2).sum(axis=1), kind="stable")[:K]]
        allowed = None if text is None else RowSet.of_rows(mine, COUNT)
        answered = engine.search(query[None], K, allowed_rows=allowed)[1][0]
        found.append(len(set(nearest.tolist()) & set(answered.tolist())) / K)
    return found


def of_class(report: Report, name: str) -> SegmentRecall:
    (row,) = [row for row in report.segments if row.segment == name]
    return row


@pytest.mark.parametrize("digest", FACTORIES)
def test_the_figures_are_those_of_brute_force_among_the_rows_that_a_filter_keeps(
    place: Path, tmp_path: Path, digest: str
) -> None:
    vectors, filters = random(120, 3), [(None, HOME, BIG, None)[number % 4] for number in range(120)]
    report = gate(place, tmp_path, vectors, digest, only=filters)
    plain, kept = ([at for at, text in enumerate(filters) if (text is None) == want] for want in (True, False))
    recall = np.array(by_hand(place, digest, vectors, filters))
    filtered = of_class(report, WITH_A_FILTER)
    assert (report.overall.queries, filtered.queries) == (60, 60)
    assert report.overall.recall == pytest.approx(recall[plain].mean(), abs=0.011)
    assert filtered.recall == pytest.approx(recall[kept].mean(), abs=0.011)
    assert filtered.judged is None
    assert filtered.recall_low < filtered.recall or digest == "flat"
    if digest == "flat":
        assert (report.overall.recall, filtered.recall, filtered.recall_low) == (1, 1, 1)


def test_the_other_classes_are_as_if_the_filtered_queries_were_not_there(place: Path, tmp_path: Path) -> None:
    vectors, kinds = random(150, 4), ["fr" if number % 2 else "" for number in range(150)]
    (tmp_path / "without").mkdir()
    (tmp_path / "with").mkdir()
    before = gate(place, tmp_path / "without", vectors[:100], kind=kinds[:100])
    after = gate(place, tmp_path / "with", vectors, kind=kinds, only=[None] * 100 + [HOME] * 50)
    assert after.overall == before.overall
    assert of_class(after, "fr") == of_class(before, "fr")
    assert of_class(after, WITH_A_FILTER).queries == 50
    assert after.canary_queries == before.canary_queries == 100


@pytest.mark.parametrize(("count", "judged"), [(10, False), (11, None)])
def test_up_to_a_twentieth_of_the_queries_is_reported_and_not_judged(
    place: Path, tmp_path: Path, count: int, judged: bool | None
) -> None:
    report = gate(place, tmp_path, random(200, 5), only=[HOME] * count + [""] * (200 - count))
    assert (of_class(report, WITH_A_FILTER).queries, of_class(report, WITH_A_FILTER).judged) == (count, judged)
    shown = [line for line in report_lines(report) if WITH_A_FILTER in line]
    assert ("reported only" in shown[0]) == ("reported only" in page(report).decode()) == (judged is False)


def test_where_every_query_has_a_filter_they_judge_and_the_canary_asks_without(place: Path, tmp_path: Path) -> None:
    report = gate(place, tmp_path, random(320, 6), only=[HOME] * 320)
    assert report.overall.queries == of_class(report, WITH_A_FILTER).queries == 320
    assert report.overall.recall == of_class(report, WITH_A_FILTER).recall < 1
    assert sum(report.queries_by_hits) == 320
    assert canary(place, report).num_rows == report.canary_queries == 300
    lines, proven = verdicts(report, 0.999, {})
    assert not proven
    assert [line.partition(":")[0] for line in lines] == ["all queries", f"queries {WITH_A_FILTER}"]


def test_the_same_vector_with_another_filter_is_another_query(place: Path, tmp_path: Path) -> None:
    spelt = ['{"section": "home"}', '{"section": {"eq": "home"}}', '{"section": "attic"}', None, None]
    report = gate(place, tmp_path, np.tile(random(1, 7), (5, 1)), only=spelt)
    assert (report.overall.queries, of_class(report, WITH_A_FILTER).queries) == (1, 2)


def test_a_query_that_equals_a_row_stays_apart_and_is_asked_with_its_filter(place: Path, tmp_path: Path) -> None:
    report = gate(place, tmp_path, np.concatenate([DATA[100:104], random(4, 8)]), "flat", only=[BIG] * 4 + [HOME] * 4)
    assert (of_class(report, SAME_AS_A_ROW).queries, of_class(report, WITH_A_FILTER).queries) == (4, 4)
    assert of_class(report, SAME_AS_A_ROW).recall == 1


def test_labels_count_among_the_rows_that_a_filter_keeps(place: Path, tmp_path: Path) -> None:
    """The right answer is row 105: with the filter it is the first, without it others are nearer."""
    query = DATA[[105]] + np.float32(0.4)
    report = gate(place, tmp_path, np.repeat(query, 2, axis=0), "flat", only=[BIG, None], right=[105, 105])
    assert of_class(report, WITH_A_FILTER).relevance_mrr == 1
    assert report.overall.relevance_mrr is not None
    assert report.overall.relevance_mrr <= 1


def test_a_filter_that_keeps_no_row_has_nothing_to_find(place: Path, tmp_path: Path) -> None:
    filters = [HOME] * 20 + ['{"section": "cellar"}'] * 20 + [None] * 20
    report = gate(place, tmp_path, random(60, 9), only=filters)
    assert of_class(report, WITH_A_FILTER).queries == 20


def test_more_filtered_queries_than_are_asked_are_sampled(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_queries, "MOST", 30)
    report = gate(place, tmp_path, random(100, 10), only=[HOME] * 80 + [None] * 20)
    assert (of_class(report, WITH_A_FILTER).queries, report.overall.queries) == (30, 20)


REFUSED: list[tuple[Any, str]] = [
    ("{section: home}", "not JSON"),
    ('{"shelf": 3}', "there is no metadata column 'shelf'"),
    ('{"size": "big"}', "a column of type integer is compared with an integer"),
    ('{"size": {"near": 3}}', "has no operator 'near'"),
    ("[1, 2]", "a filter must be an object"),
    ("{}", "a filter must not be empty"),
    ("3", "a filter must be an object"),
    ('{"section": "' + "x" * 2000 + '"}', "at most 1024 characters"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_filter_that_a_search_would_refuse_ends_the_gate_by_row(
    place: Path, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(BadData) as caught:
        gate(place, tmp_path, random(5, 11), only=[HOME, None, "", text, HOME])
    failure = caught.value.failure
    assert (failure.reason, failure.row, failure.object) == ("BadFilter", 3, "queries.parquet")
    assert failure.field == "spec.gate.queries.filterColumn"
    assert said in failure.message
    assert "'only'" in failure.message
    assert failure.remedy
    assert len(failure.message) < 600


def test_filters_are_text_or_in_parquet_structs(place: Path, tmp_path: Path) -> None:
    """A struct has all members of all rows; those that are null are not there."""
    given = [{"section": "home"}, {"size": {"gte": 100, "lt": 130}}, None]
    texts = [None if one is None else json.dumps(one) for one in given]
    vectors = random(3, 12)
    for name in ("text", "struct", "lines", "objects"):
        (tmp_path / name).mkdir()
    text = gate(place, tmp_path / "text", vectors, only=texts)
    assert of_class(text, WITH_A_FILTER).queries == 2
    assert gate(place, tmp_path / "struct", vectors, only=pa.array(given)).segments == text.segments
    for name, filters in (("lines", texts), ("objects", given)):
        rows = [{"vector": row, "only": one} for row, one in zip(vectors.tolist(), filters, strict=True)]
        (tmp_path / name / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert gate(place, tmp_path / "lines", None, only=[]).segments == text.segments
    with pytest.raises(BadData, match="field 'only' holds objects; expected strings"):
        gate(place, tmp_path / "objects", None, only=[])


def test_an_index_that_cannot_be_filtered_is_told_before_it_is_measured(place: Path, tmp_path: Path) -> None:
    made(place, "bare", IndexSpec(factory="Flat"), metadata=())
    with pytest.raises(BadData) as caught:
        gate(place, tmp_path, random(3, 13), "bare", only=[HOME] * 3)
    assert "there is no metadata column" in caught.value.failure.message
    made(place, "blocks", IndexSpec(factory="PQ4x4fs_64"))
    with pytest.raises(TaskError) as other:
        gate(place, tmp_path, random(3, 13), "blocks", only=[HOME] * 3)
    assert isinstance(other.value, BadSpec)
    assert other.value.failure.reason == "CannotFilter"


def test_a_file_without_columns_has_no_filters(place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random(3, 14))
    with pytest.raises(BadSpec) as caught:
        gate(place, tmp_path, None, only=[])
    assert caught.value.failure.reason == "UnknownColumn"
