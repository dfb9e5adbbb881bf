"""`validate` on real artifacts in a folder: ground truth that is kept and checked, what the report holds."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_operator.reconcile.pods import parse_termination_message
from vectorindex_searcher.artifact.document import DOCUMENT_LIMIT_BYTES
from vectorindex_searcher.artifact.inspection import inspect, report_page
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import ManifestFile, load_manifest
from vectorindex_searcher.artifact.publish import download_verified
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli import termination
from vectorindex_searcher.contract import (
    LIVE_QUERIES,
    LIVE_SAME_AS_A_ROW,
    RESULT_LIMIT_BYTES,
    BuildTask,
    Columns,
    Embedding,
    Identity,
    IndexSpec,
    Location,
    Metric,
    SegmentRecall,
    ServeTask,
    ValidateTask,
)
from vectorindex_searcher.errors import BadData, StoreUnavailable, TaskError
from vectorindex_searcher.proof import groundtruth, schema
from vectorindex_searcher.proof.columns import column_types
from vectorindex_searcher.proof.live.report import LiveReport
from vectorindex_searcher.proof.report import Report, load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.proof.timing import open_measured
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 1500, 16
IDENTITY = Identity(namespace="shop", name="products", uid="u-1")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer queries and shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr(build_module, "HELD_OUT", 30)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)


def clustered(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, DIMENSION))
    return (centres[rng.integers(0, 20, count)] + 0.6 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    np.save(folder / "a.npy", clustered(COUNT))
    return folder


def built(source: Path, out: Path, digest: str = "digest1", factory: str = "IVF32,Flat", **changes: Any) -> None:
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": digest,
        "source": Location(folder=str(source)),
        "artifacts": Location(folder=str(out)),
        "index": IndexSpec(factory=factory),
    }
    build(BuildTask(**(fields | changes)))


def gate(out: Path, gate_hash: str = "gate1", digest: str = "digest1", **changes: Any) -> Report:
    """Validate, and the report as it lies in the store."""
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": digest,
        "manifest_sha256": "",
        "gate_hash": gate_hash,
        "artifacts": Location(folder=str(out)),
    }
    validate(ValidateTask(**(fields | changes)))
    return load_report(*stored(out), digest, gate_hash)[0]


def stored(out: Path) -> tuple[FolderStore, Layout]:
    store = FolderStore(out, Role.ARTIFACTS)
    return store, Layout(store.prefix, IDENTITY)


def asked(out: Path) -> Location:
    """A user's queries: their ground truth is found by `validate` itself."""
    if not (path := out / "queries.npy").exists():
        np.save(path, clustered(150, seed=3))
    return Location(folder=str(path))


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the exact scans that were made."""
    made: list[int] = []
    real = groundtruth.exact_search

    def spied(*arguments: Any, **options: Any) -> Any:
        made.append(len(arguments[1]))
        return real(*arguments, **options)

    monkeypatch.setattr(groundtruth, "exact_search", spied)
    return made


def kept(out: Path, suffix: str = "arrow") -> list[Path]:
    return sorted(out.glob(f"shop/products/groundtruth/*.{suffix}"))


def test_a_second_gate_and_another_factory_scan_nothing_again(source: Path, tmp_path: Path, scans: list[int]) -> None:
    built(source, tmp_path)
    assert scans == [30, 30, 30]  # of the rows to tune and to judge with, and of the canary in the whole index
    scans.clear()
    first = gate(tmp_path)
    assert (first.ground_truth, scans) == ("reused", [])
    second = gate(tmp_path, "gate2", confidence=0.9)
    assert (second.ground_truth, scans) == ("reused", [])
    assert (second.overall.recall, second.overall.mrr) == (first.overall.recall, first.overall.mrr)
    assert second.overall.recall_low > first.overall.recall_low  # less is promised of the same figures
    built(source, tmp_path, "digest2", "HNSW16,Flat")
    other = gate(tmp_path, digest="digest2")
    assert (other.ground_truth, scans) == ("reused", [])
    assert other.overall.recall > 0.9


def test_another_k_other_data_other_queries_or_another_metric_scan_anew(
    source: Path, tmp_path: Path, scans: list[int]
) -> None:
    built(source, tmp_path, factory="Flat")
    queries = asked(tmp_path)
    gate(tmp_path, queries=queries)
    assert gate(tmp_path, "gate2", k=5, queries=queries).ground_truth == "computed"
    np.save(tmp_path / "others.npy", clustered(150, seed=4))
    others = Location(folder=str(tmp_path / "others.npy"))
    assert gate(tmp_path, "gate3", queries=others).ground_truth == "computed"
    built(source, tmp_path, "digest2", "Flat", embedding=Embedding(metric=Metric.L2))
    assert gate(tmp_path, digest="digest2", queries=queries).ground_truth == "computed"
    # One row changed places with another: the same vectors, other row numbers.
    swapped = clustered(COUNT)
    swapped[[0, 1]] = swapped[[1, 0]]
    (tmp_path / "swapped").mkdir()
    np.save(tmp_path / "swapped" / "a.npy", swapped)
    built(tmp_path / "swapped", tmp_path, "digest3", "Flat")
    found = gate(tmp_path, digest="digest3", queries=queries)
    assert (found.ground_truth, found.overall.recall) == ("computed", 1.0)
    # Tuning and gate of three artifacts, and the user's queries: of three, with another k, and others.
    assert len(scans) == len(kept(tmp_path)) == 6 + 5


CLAIMS = {"another k": {"k": 9}, "other rows": {"rows": COUNT - 1}, "endless": {"size": groundtruth.LIMIT_BYTES + 1}}
"""Of a note whose checksum is right."""


@pytest.mark.parametrize("spoilt", ["flipped", "cut", "note", "absent note", "another k", "other rows", "endless"])
def test_ground_truth_that_is_not_what_it_says_is_computed_anew(
    source: Path, tmp_path: Path, scans: list[int], caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    built(source, tmp_path)
    scans.clear()
    of_tuning = {path.stem for path in kept(tmp_path)}
    first = gate(tmp_path, queries=asked(tmp_path))
    (path,) = (path for path in kept(tmp_path) if path.stem not in of_tuning)
    note = path.with_suffix(".json")
    whole = path.read_bytes()
    if spoilt == "flipped":
        # A row number: a reader without a checksum would believe it.
        path.write_bytes(whole[: len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 1]) + whole[len(whole) // 3 + 1 :])
    elif spoilt == "cut":
        path.write_bytes(whole[:-1])
    elif spoilt == "note":
        note.write_text("{}")
    elif spoilt in CLAIMS:
        note.write_text(json.dumps(json.loads(note.read_text()) | CLAIMS[spoilt]))
    else:
        note.unlink()
    with caplog.at_level(logging.WARNING):
        second = gate(tmp_path, "gate2", queries=asked(tmp_path))
    assert second.ground_truth == "computed"
    assert second.overall == first.overall
    assert ("not usable" in caplog.text) == (spoilt != "absent note")
    whys = [str(getattr(record, "why", "")) for record in caplog.records]
    assert any("TruthNote" in why for why in whys) == (spoilt in ("note", "endless")), "refused before it is read"
    assert path.read_bytes() == whole  # and it is whole again
    assert gate(tmp_path, "gate3", queries=asked(tmp_path)).ground_truth == "reused"
    assert len(scans) == 2


def test_a_truth_too_large_to_be_read_is_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(source, tmp_path)
    before = kept(tmp_path)
    monkeypatch.setattr(groundtruth, "LIMIT_BYTES", 1000)
    assert gate(tmp_path, queries=asked(tmp_path)).ground_truth == "computed"
    assert kept(tmp_path) == before


def test_a_store_that_keeps_nothing_costs_only_the_scan(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built(source, tmp_path)
    for path in (*kept(tmp_path), *kept(tmp_path, "json")):
        path.unlink()
    real = FolderStore.put

    def refusing(self: FolderStore, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        if "groundtruth" in key:
            raise StoreUnavailable("AccessDenied", f"{key}: no")
        return real(self, key, data, exclusive=exclusive)

    monkeypatch.setattr(FolderStore, "put", refusing)
    with caplog.at_level(logging.WARNING):
        assert gate(tmp_path, queries=asked(tmp_path)).overall.queries == 150
    assert "could not be kept" in caplog.text
    assert kept(tmp_path) == []


def aged(out: Path, key: str, hours: float) -> str:
    """A ground truth that was kept so long before; its key."""
    name = hashlib.sha256(key.encode()).hexdigest()
    for suffix in ("arrow", "json"):
        path = out / "shop" / "products" / "groundtruth" / f"{name}.{suffix}"
        path.write_bytes(b"{}")
        os.utime(path, times=(time.time() - hours * 3600,) * 2)
    return name


def test_old_ground_truth_goes_but_never_what_a_job_may_be_about_to_read(source: Path, tmp_path: Path) -> None:
    built(source, tmp_path)
    folder = tmp_path / "shop" / "products" / "groundtruth"
    of_build = {path.stem for path in kept(tmp_path)}
    foreign = folder / "notes.txt"
    foreign.write_text("of somebody")
    os.utime(foreign, times=(0, 0))
    young = {aged(tmp_path, f"young {hours}", hours) for hours in range(2, 23, 2)}
    old = {aged(tmp_path, f"old {hours}", hours) for hours in (25, 48, 99)}
    gate(tmp_path, queries=asked(tmp_path))
    (of_gate,) = {path.stem for path in kept(tmp_path)} - young - old - of_build
    assert {path.stem for path in folder.iterdir()} == {*young, *of_build, of_gate, "notes"}  # 15: all of one day
    # A week later.
    for path in folder.iterdir():
        os.utime(path, times=(path.stat().st_mtime - 7 * 86_400,) * 2)
    gate(tmp_path, "gate2", k=5, queries=asked(tmp_path))
    left = {path.stem for path in kept(tmp_path)}
    assert len(left) == len(kept(tmp_path, "json")) == groundtruth.KEPT == 12
    newest_young = {hashlib.sha256(f"young {hours}".encode()).hexdigest() for hours in range(2, 15, 2)}
    assert left > newest_young | of_build | {of_gate}
    assert foreign.exists()
    # What lies there is still read.
    assert gate(tmp_path, "gate3", k=5, queries=asked(tmp_path)).ground_truth == "reused"


def test_a_query_that_is_given_often_counts_once(source: Path, tmp_path: Path) -> None:
    """Copies are no independent queries: counted each, they proved what nobody had asked."""
    built(source, tmp_path)
    once = gate(tmp_path, "once", queries=asked(tmp_path))
    np.save(tmp_path / "often.npy", np.concatenate([clustered(150, seed=3)] * 4))
    often = gate(tmp_path, "often", queries=Location(folder=str(tmp_path / "often.npy")))
    assert often.overall == once.overall
    assert often.overall.queries == 150


def test_ground_truth_that_cannot_be_removed_fails_no_gate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built(source, tmp_path)
    old = [aged(tmp_path, f"old {hours}", hours) for hours in range(100, 110)]

    def refusing(self: FolderStore, key: str) -> None:
        raise StoreUnavailable("AccessDenied", f"{key}: no")

    monkeypatch.setattr(FolderStore, "delete", refusing)
    with caplog.at_level(logging.WARNING):
        assert gate(tmp_path, queries=asked(tmp_path)).overall.queries == 150
    assert "old ground truth could not be removed" in caplog.text
    assert len(kept(tmp_path)) == len(old) + 4


def test_a_report_of_another_manifest_is_not_answered(source: Path, tmp_path: Path) -> None:
    """The artifact was built again under its digest: a searcher that got the old report would refuse its files."""
    built(source, tmp_path)
    first = gate(tmp_path)
    again = gate(tmp_path)
    assert again == first
    for path in (tmp_path / "shop" / "products" / "digest1").rglob("manifest.json"):
        path.unlink()
    built(source, tmp_path, factory="IVF16,SQ8")
    manifest, sha256 = load_manifest(*stored(tmp_path), "digest1")
    second = gate(tmp_path, manifest_sha256=sha256)
    assert second.manifest_sha256 == sha256 != first.manifest_sha256
    assert second.factory == "IVF16,SQ8"
    # And a searcher takes it, with the canary and the points that belong to it.
    store, layout = stored(tmp_path)
    _, report_sha256 = load_report(store, layout, "digest1", "gate1")
    serving = ServeTask(
        identity=IDENTITY, revision="r", digest="digest1", manifest_sha256=sha256, gate_hash="gate1",
        report_sha256=report_sha256, artifacts=Location(folder=str(tmp_path)), cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    loaded = load(serving, lambda said: None)
    assert loaded.canary_recall == pytest.approx(second.canary_recall)
    assert loaded.engine.manifest == manifest


def test_what_a_dead_try_left_for_another_manifest_is_replaced(source: Path, tmp_path: Path) -> None:
    """Canary and points without a report: of this manifest they are kept, of another one they name other rows."""
    built(source, tmp_path)
    gate(tmp_path)
    folder = next((tmp_path / "shop").rglob("report.json")).parent
    (folder / "report.json").unlink()
    left = {name: (folder / name).read_bytes() for name in ("canary.arrow", "points.json")}
    gate(tmp_path)
    assert left == {name: (folder / name).read_bytes() for name in left}
    (folder / "report.json").unlink()
    next((tmp_path / "shop").rglob("manifest.json")).unlink()
    built(source, tmp_path, factory="IVF16,SQ8")
    gate(tmp_path)
    assert all((folder / name).read_bytes() != left[name] for name in left)


def test_nothing_that_lies_beside_an_artifact_is_read_without_a_bound(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier try left there is known by no checksum yet: whoever may write there could fill the memory."""
    real = FolderStore.read
    lengths: dict[str, list[int | None]] = {}

    def spied(store: FolderStore, key: str, *, length: int | None = None, **asked: Any) -> bytes:
        if store.role is Role.ARTIFACTS:
            lengths.setdefault(key.rpartition("/")[2], []).append(length)
        return real(store, key, length=length, **asked)

    monkeypatch.setattr(FolderStore, "read", spied)
    built(source, tmp_path)
    gate(tmp_path)
    next((tmp_path / "shop").rglob("report.json")).unlink()
    gate(tmp_path)
    assert len([*inspect(str(tmp_path))]) > 20
    report_page(str(tmp_path))
    assert {"manifest.json", "report.json", "points.json", "canary.arrow"} < set(lengths)
    assert not [name for name, asked in lengths.items() if None in asked]


@pytest.mark.parametrize("name", ["report.json", "points.json"])
def test_what_is_of_another_gate_is_of_no_use_to_this_one(source: Path, tmp_path: Path, name: str) -> None:
    """Whoever copies a folder of the bucket proves nothing by it."""
    built(source, tmp_path)
    gate(tmp_path)
    folder = next((tmp_path / "shop").rglob("report.json")).parent
    shutil.copytree(folder, folder.with_name("gate2"))
    if name == "points.json":
        (folder.with_name("gate2") / "report.json").unlink()
    with pytest.raises(BadData, match=f"{name} is of digest1/gate1, expected digest1/gate2"):
        gate(tmp_path, "gate2")


@pytest.mark.parametrize("name", ["manifest.json", "report.json", "points.json"])
def test_a_document_of_more_than_a_mebibyte_is_no_document(source: Path, tmp_path: Path, name: str) -> None:
    built(source, tmp_path)
    gate(tmp_path)
    path = next((tmp_path / "shop").rglob(name))
    path.write_bytes(path.read_bytes() + b" " * DOCUMENT_LIMIT_BYTES)
    if name == "points.json":
        (path.parent / "report.json").unlink()
    with pytest.raises(TaskError, match=f"{name} is larger than 1048576 bytes"):
        gate(tmp_path)


def test_the_report_is_what_its_schema_says(source: Path, tmp_path: Path) -> None:
    """The schema that is published, against a report that was measured; what is missing or unknown is refused."""
    assert schema.main(["--check"]) == 0
    described = json.loads(schema.REFERENCE.read_text())
    jsonschema.Draft202012Validator.check_schema(described)
    built(source, tmp_path)
    gate(tmp_path)
    (path,) = tmp_path.glob("shop/products/digest1/reports/gate1/report.json")
    report = json.loads(path.read_bytes())
    check = jsonschema.Draft202012Validator(described)
    check.validate(report)
    for broken in (
        report | {"recall": 1.0},
        {key: value for key, value in report.items() if key != "overall"},
        report | {"groundTruth": "guessed"},
        report | {"overall": report["overall"] | {"recallLow": "high"}},
    ):
        assert not check.is_valid(broken)
    assert "vectors and queries" in described["properties"]["groundTruth"]["description"]
    assert described["$defs"]["SegmentRecall"]["properties"]["mrr"]["description"].startswith("Mean reciprocal rank")


def test_what_the_report_says_of_cost(source: Path, tmp_path: Path) -> None:
    built(source, tmp_path, factory="Flat")
    report = gate(tmp_path)
    assert [row.batch for row in report.latency] == [1, 8, 64]
    assert all(0 < row.p50_ms <= row.p95_ms for row in report.latency)
    assert (report.p50_ms, report.batch_query_us) == (report.latency[0].p50_ms, report.latency[2].query_us)
    for row in report.latency:
        assert row.query_us == pytest.approx(row.p50_ms * 1e3 / row.batch)


def test_resident_memory_is_what_the_process_grew_by(tmp_path: Path) -> None:
    """Pages of a mapped file count once they were touched: a flat index of 16 MiB, searched through."""
    rows = 16 * 2**20 // (4 * 256)
    vectors = np.random.default_rng(0).standard_normal((rows, 256)).astype(np.float32)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", vectors)
    built(tmp_path / "in", tmp_path, factory="Flat")
    store, layout = stored(tmp_path)
    manifest, _ = load_manifest(store, layout, "digest1")
    folder = download_verified(store, layout, manifest, tmp_path / "cache")
    # What the build has left is given back now, not meanwhile.
    gc.collect()
    pa.default_memory_pool().release_unused()
    engine, grown = open_measured(folder, manifest, vectors[:3], 10)
    assert engine.count == rows
    assert grown is not None
    assert 0.9 * 2**24 < grown < 1.6 * 2**24


def test_the_result_of_any_number_of_segments_fits_into_a_termination_message(source: Path, tmp_path: Path) -> None:
    """The kubelet cuts at 4 KiB, and half a JSON is no verdict. Rounding never lifts a figure over a floor."""
    built(source, tmp_path)
    report = gate(tmp_path)
    row = SegmentRecall(
        segment="s" * 40, queries=50_000, recall=0.9876543219, recall_low=0.9599999999, mrr=1 / 3, relevance_mrr=1 / 7
    )
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), 40)) for _ in range(32)]
    rows = tuple(row.model_copy(update={"segment": name, "recall": rng.random()}) for name in names)
    worst = report.model_copy(
        update={"segments": (row,) * 32, "overall": row.model_copy(update={"segment": ""}), "p95_ms": 1 / 3,
                "count": 2**40, "resident_bytes": 2**44, "gate_hash": "f" * 16, "canary_recall": 1 / 3}
    )  # fmt: skip
    asked = row.model_copy(update={"segment": LIVE_QUERIES, "recall_high": 0.9888888888, "senders": 10_000})
    apart = asked.model_copy(update={"segment": LIVE_SAME_AS_A_ROW})
    live = LiveReport(queries=10_000, senders=10_000, tuning=5000, judged=True, recall=asked, same_as_a_row=apart,
                      searches=2**40, filtered=2**39, own_params=2**39)  # fmt: skip
    worst = worst.model_copy(update={"live": live})
    result = worst.result("f" * 64, "s" * 32)
    assert result.column_types == "s" * 32
    assert (result.filters, worst.model_copy(update={"filtered": ()}).result("f" * 64).filters) == (True, False)
    assert len(termination.encode(result)) <= RESULT_LIMIT_BYTES
    assert parse_termination_message(termination.encode(result).decode()) == (result, None)
    without = result.model_copy(update={"live": None, "live_note": None})
    assert orjson.loads(termination.encode(without)) == without.wire(), "what fits is no riddle"
    unlike = worst.model_copy(update={"segments": rows}).result("f" * 64, "s" * 32)
    assert len(termination.encode(unlike)) <= RESULT_LIMIT_BYTES
    assert parse_termination_message(termination.encode(unlike).decode()) == (unlike, None)
    (brief,) = set(result.segments)
    assert (brief.recall, brief.recall_low, brief.mrr) == (0.987654, 0.959999, None)
    assert result.overall.relevance_mrr == 0.142857
    # A few segments keep their ranks, and exact figures stay exact.
    small = worst.model_copy(update={"segments": (row.model_copy(update={"recall_low": 0.96}),)}).result("f" * 64)
    assert (small.segments[0].mrr, small.segments[0].recall_low) == (0.333333, 0.96)


TYPED = {
    "lang": pa.array(["en", "de"] * 50),
    "size": pa.array(range(100), pa.int32()),
    "price": pa.array([0.5] * 100),
    "fresh": pa.array([True] * 100),
    "seen": pa.array([0] * 100, pa.timestamp("us")),
    "day": pa.array([0] * 100, pa.date32()),
    "tags": pa.array([["a"]] * 100),
    "nothing": pa.array([None] * 100, pa.null()),
    "shape": pa.array([{"a": 1}] * 100),
}


def test_the_result_tells_the_types_of_the_metadata_columns(tmp_path: Path) -> None:
    """Whether it was measured now or before, maybe by a release that did not look."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    vectors = pa.FixedSizeListArray.from_arrays(clustered(100).ravel(), DIMENSION)
    names = tuple(reversed(TYPED))
    pq.write_table(pa.table({"id": pa.array(range(100)), "vector": vectors, **TYPED}), source / "a.parquet")
    built(source, out, factory="Flat", columns=Columns(metadata=names))
    task = ValidateTask(
        identity=IDENTITY, digest="digest1", manifest_sha256="", gate_hash="g", artifacts=Location(folder=str(out))
    )
    results = [validate(task) for _ in range(2)]
    assert [(result.column_types, result.filters) for result in results] == [("onSdtbfis", True)] * 2


def test_a_metadata_file_without_a_readable_head_costs_no_verdict(source: Path, tmp_path: Path) -> None:
    built(source, tmp_path)
    store, layout = stored(tmp_path)
    manifest, _ = load_manifest(store, layout, "digest1")
    assert column_types(store, layout, manifest) is None
    file = ManifestFile(name="metadata.arrow", size=9, sha256="0" * 64)
    claimed = manifest.model_copy(update={"metadata_columns": ("lang",), "files": (*manifest.files, file)})
    assert column_types(store, layout, claimed) is None, "there is none"
    for head in (b"", b"ARROW1", b"ARROW1\0\0" + b"\xff" * 64):
        store.put(layout.file("digest1", manifest.attempt, "metadata.arrow"), head)
        assert column_types(store, layout, claimed) is None
