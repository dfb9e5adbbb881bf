"""What `outcomes` writes beside the artifacts, and what an index begins with: bounded, its own, only what is there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vectorindex_searcher.artifact import outcomes as module
from vectorindex_searcher.artifact.layout import Kind, Layout
from vectorindex_searcher.artifact.outcomes import MOST_BYTES, outcomes
from vectorindex_searcher.artifact.users import USING
from vectorindex_searcher.cli import termination
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    PACKED,
    RESULT_LIMIT_BYTES,
    TASK_ENV,
    BuildResult,
    Identity,
    Location,
    OperatingPoint,
    Outcome,
    OutcomesResult,
    OutcomesTask,
    SegmentRecall,
    ValidateResult,
    unpack,
)
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import ObjectInfo, Role

IDENTITY = Identity(namespace="team", name="docs", uid="uid-1")
AGAIN = IDENTITY.model_copy(update={"uid": "uid-2"})
LAYOUT = Layout("", IDENTITY)
POINT = OperatingPoint(params={"nprobe": 4}, recall=0.9812345678, recall_low=0.97, latency_us=101.25)


NOW = 1_796_083_200.0  # 2026-12-01T00:00:00Z


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path, Role.ARTIFACTS)


def sha(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def at(hour: int) -> str:
    return f"2026-11-{1 + hour // 24:02}T{hour % 24:02}:00:00.000000Z"


def outcome(number: int, kind: str, hour: int, **more: Any) -> Outcome:
    facts: dict[str, Any] = {
        "version": 1, "identity": IDENTITY, "revision": f"docs-{number:08x}", "outcome": kind, "at": at(hour),
        "digest": sha("digest", number), "fingerprint": sha("data", number), "image": "example/searcher:v1",
    }  # fmt: skip
    return Outcome(**facts | more)


def rejected(number: int, hour: int, **more: Any) -> Outcome:
    why = {"phase": "RolledBack", "stage": "Rollout", "reason": "ErrorRate", "message": f"7 % of {number} failed"}
    return outcome(number, "Rejected", hour, **why | more)


def promoted(store: FolderStore, number: int, hour: int, segments: int = 0) -> Outcome:
    """With its artifact and its report, as far as they are looked at."""
    digest, gate = sha("digest", number), "0123456789abcdef"
    manifest, report = f"manifest {number}".encode(), f"report {number}".encode()
    store.put(LAYOUT.manifest(digest), manifest)
    store.put(LAYOUT.report(digest, gate), report)
    build = BuildResult(
        digest=digest, attempt="build-1", manifest_sha256=hashlib.sha256(manifest).hexdigest(), fingerprint=sha(number),
        count=10_000, dimension=8, factory="Flat", device="CPU", duration_seconds=12.25, peak_memory_bytes=2**28,
        index_bytes=2**26, resident_bytes=2**27, faiss_version="1.15.1", default_point=POINT, conservative_point=POINT,
    )  # fmt: skip
    rows = tuple(
        SegmentRecall(segment=sha(number, n), queries=n, recall=0.98, recall_low=0.97) for n in range(segments)
    )
    proof = ValidateResult(
        gate_hash=gate, k=10, confidence=0.95, overall=SegmentRecall(queries=1000, recall=0.98, recall_low=0.97),
        segments=rows, count=10_000, p50_ms=0.5123, p95_ms=1.0777, resident_bytes=2**27, canary_queries=300,
        canary_recall=0.98, report_sha256=hashlib.sha256(report).hexdigest(),
    )  # fmt: skip
    return outcome(number, "Promoted", hour, build=build, report=proof)


def run(store: FolderStore, *write: Outcome, restore: bool = False, **more: Any) -> OutcomesResult:
    of = {"identity": AGAIN if restore else IDENTITY, "artifacts": Location(folder=str(store.root))}
    return outcomes(OutcomesTask(write=write, restore=restore, **of | more))


def revisions(result: OutcomesResult) -> list[str]:
    return [one.revision for one in result.found]


def keys(store: FolderStore) -> list[str]:
    return sorted(item.key for item in store.list(LAYOUT.outcome()))


def test_an_index_that_is_made_again_begins_with_what_was_decided(store: FolderStore) -> None:
    good, before, bad = promoted(store, 1, 5), promoted(store, 2, 1), rejected(3, 7)
    assert run(store, good, before, bad).written == 3
    found = run(store, restore=True, cluster="cluster-b")
    assert found == OutcomesResult(found=(good, before, bad))
    assert found.found[2].message == "7 % of 3 failed"
    marks = {one.digest: store.read(LAYOUT.users(one.digest, "cluster-b")) for one in (good, before)}
    assert set(marks.values()) == {USING}, "who will use an artifact says so before it is read"
    assert list(store.list(LAYOUT.users(bad.digest))) == []
    assert run(store, restore=False).found == (), "nobody asked"


def test_a_document_is_written_once_whoever_writes_it(store: FolderStore) -> None:
    """A Job that is run again writes nothing, and two clusters do not meet."""
    mine, theirs = rejected(1, 5, cluster="a"), rejected(1, 5, cluster="b")
    assert run(store, mine).written == 1
    before = keys(store)
    assert run(store, mine).written == 0
    assert run(store, theirs).written == 1
    assert len(keys(store)) == 2
    assert keys(store)[0].startswith(f"{LAYOUT.outcome()}/20261101T050000")
    assert set(before) < set(keys(store))
    assert [LAYOUT.parse(key).kind for key in keys(store)] == [Kind.OUTCOME] * 2  # type: ignore[union-attr]


def test_what_was_said_last_of_a_revision_holds(store: FolderStore) -> None:
    """Rejected, tried again by a person, promoted; and the other way round."""
    run(store, rejected(1, 5), promoted(store, 1, 6), promoted(store, 2, 3), rejected(2, 4))
    found = run(store, restore=True)
    assert [(one.revision, one.outcome) for one in found.found] == [
        ("docs-00000001", "Promoted"), ("docs-00000002", "Rejected"),
    ]  # fmt: skip


@pytest.mark.parametrize("harm", ["gone", "another"])
def test_what_was_promoted_is_nothing_without_its_very_artifact(store: FolderStore, harm: str) -> None:
    good, before = promoted(store, 1, 5), promoted(store, 2, 1)
    run(store, good, before)
    key = LAYOUT.manifest(good.digest)
    if harm == "gone":
        store.delete(key)
    else:
        store.put(key, b"another")
    assert revisions(run(store, restore=True)) == [before.revision]


@pytest.mark.parametrize("harm", ["gone", "another", "no name"])
def test_a_report_that_is_another_one_is_no_proof(store: FolderStore, harm: str) -> None:
    good = promoted(store, 1, 5)
    assert good.report is not None
    key = LAYOUT.report(good.digest, good.report.gate_hash)
    if harm == "gone":
        store.delete(key)
    elif harm == "another":
        store.put(key, b"another")
    else:
        good = good.model_copy(update={"report": good.report.model_copy(update={"gate_hash": "../x"})})
    run(store, good)
    (found,) = run(store, restore=True).found
    assert (found.report, found.build) == (None, good.build), "it is proven again"


def hostile(store: FolderStore) -> dict[str, bytes]:
    """What a hand may have put there."""
    good = rejected(9, 5).wire()
    return {
        "no JSON": b"{",
        "no object": b"[1]",
        "deep": b"[" * 100_000,
        "long": json.dumps(good | {"more": "x" * MOST_BYTES}).encode(),
        "of another index": json.dumps(good | {"identity": {"namespace": "other", "name": "docs"}}).encode(),
        "of a later meaning": json.dumps(good | {"version": 2}).encode(),
        "a name that is none": json.dumps(good | {"revision": "../docs"}).encode(),
        "a digest that leads elsewhere": json.dumps(good | {"digest": "../../other/docs/x"}).encode(),
        "a text that no status holds": json.dumps(good | {"mood": "x" * 1025}).encode(),
        "no number": json.dumps(good | {"minScore": float("nan")}).encode(),
        "a number of more than 64 bits": json.dumps(good | {"mood": [2**63]}).encode(),
        "of a time to come": json.dumps(good | {"at": "2026-12-01T00:05:01Z"}).encode(),
        "no time": json.dumps(good | {"at": "tomorrow"}).encode(),
    }


def test_what_cannot_be_used_is_counted_and_hides_nothing(store: FolderStore) -> None:
    run(store, rejected(1, 5))
    bad = hostile(store)
    for number, data in enumerate(bad.values()):
        store.put(LAYOUT.outcome(f"2026{number}"), data)
    found = run(store, restore=True)
    assert (revisions(found), found.unusable) == (["docs-00000001"], len(bad))


def test_what_another_release_wrote_is_read_and_kept(store: FolderStore) -> None:
    document = rejected(1, 5).wire() | {"mood": "bad", "stage": {"of": "another kind"}}
    store.put(LAYOUT.outcome("20261101"), json.dumps(document).encode())
    (found,) = run(store, restore=True).found
    assert (found.stage, found.reason) == ("", "ErrorRate")
    assert found.wire()["mood"] == "bad"


@pytest.mark.parametrize("segments", [0, 40])
def test_a_result_fits_a_termination_message_and_begins_with_what_serves(store: FolderStore, segments: int) -> None:
    good = promoted(store, 1, 90, segments)
    for number in range(40):
        run(store, rejected(100 + number, number, message=sha(number) * 8))
    run(store, good, promoted(store, 2, 80, segments))
    found = run(store, restore=True)
    written = termination.encode(found)
    assert len(written) <= RESULT_LIMIT_BYTES
    said = json.loads(written)
    assert OutcomesResult.read(unpack(said) if said["kind"] == PACKED else said) == found
    assert revisions(found)[0] == good.revision
    assert found.found[0].build == good.build
    assert len(found.found) + found.left_out == 42
    if not segments:
        assert revisions(found)[1] == "docs-00000002", "and with what it would go back to"
        assert revisions(found)[2] == f"docs-{139:08x}", "then with the newest rejections"
        assert len(found.found) > 5


def test_the_oldest_are_removed_by_whoever_writes(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 5)
    for number in range(8):
        run(store, rejected(number, number))
    assert len(keys(store)) == 5
    assert keys(store)[0].startswith(f"{LAYOUT.outcome()}/20261101T03")


def test_what_is_dated_in_the_future_pushes_out_nothing_that_is_true(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 5)
    soon = rejected(50, 30 * 24, at="2026-12-01T00:05:00Z")  # clocks differ
    true = [*(rejected(number, number) for number in range(4)), soon]
    run(store, *true)
    future = [LAYOUT.outcome(f"{name}-0123456789abcdef") for name in ("20261201T000501", "99991231T235959", "zzz")]
    for key in future:
        store.put(key, json.dumps(rejected(90, 5).wire()).encode())
    found = run(store, restore=True)
    assert revisions(found) == [one.revision for one in reversed(true)]
    assert found.unusable == 3
    run(store, rejected(60, 60))
    assert revisions(run(store, restore=True)) == [one.revision for one in (soon, rejected(60, 60), *true[3:0:-1])]
    assert set(future) <= set(keys(store)), "whose clock is wrong is not known"


def test_more_names_than_are_listed_are_done_without(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not listed may hold the last word; whoever writes goes on removing the oldest."""
    monkeypatch.setattr(module, "MOST_NAMES", 8)
    monkeypatch.setattr(module, "MOST_KEPT", 5)
    for number in range(8):
        store.put(LAYOUT.outcome(f"20261101T0{number}"), json.dumps(rejected(number, number).wire()).encode())
    assert len(run(store, restore=True).found) == 5
    store.put(LAYOUT.outcome("20261101T08"), json.dumps(rejected(8, 8).wire()).encode())
    listed: list[str] = []
    real = FolderStore.list

    def counted(self: FolderStore, prefix: str) -> Iterator[ObjectInfo]:
        for item in real(self, prefix):
            listed.append(item.key)
            yield item

    monkeypatch.setattr(FolderStore, "list", counted)
    assert run(store, restore=True) == OutcomesResult(too_many=True)
    assert len(listed) == 9, "a bucket may hold millions"
    monkeypatch.setattr(FolderStore, "list", real)
    run(store, rejected(9, 9))
    assert not run(store, restore=True).too_many


def test_the_verb(store: FolderStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By its task, also of a newer operator, and by a person, who only looks."""
    asked = OutcomesTask(identity=IDENTITY, artifacts=Location(folder=str(store.root)), write=(rejected(1, 5),))
    text = json.loads(asked.task_text(first_release=False)) | {"later": 1}
    monkeypatch.setenv(TASK_ENV, json.dumps(text))
    assert main(["outcomes"]) == 0
    monkeypatch.delenv(TASK_ENV)
    assert main(["outcomes", "--artifact", str(store.root), "--namespace", "team", "--name", "docs"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["found"][0]["reason"] == "ErrorRate"
