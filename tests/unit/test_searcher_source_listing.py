"""A searcher lists its index's source when asked to: the fingerprint of `resolve`, seldom, and never in the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from clocks import Clock
from cost import in_a_process_of_its_own
from dataset_files import write_parquet
from served import Published
from unit.test_internal_requests import KEY, ME, ask, published, serving  # noqa: F401 - a fixture
from unit.test_searcher_store_faults import FaultyS3, faulty  # noqa: F401 - a fixture
from waiting import until

from vectorindex_operator.manifests.sizing import LISTING_BYTES
from vectorindex_searcher.contract import (
    S3,
    SOURCE_ENV,
    SOURCE_PATH,
    Identity,
    InternalRequest,
    Location,
    ResolveTask,
    SourceLook,
    Target,
    sign,
    source_id,
)
from vectorindex_searcher.dataset import listing
from vectorindex_searcher.dataset.listing import fingerprint, list_source
from vectorindex_searcher.dataset.places import no_data
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.serve import source as lister
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.source import SourceListing
from vectorindex_searcher.storage import store as stores
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import ObjectInfo, Role, open_store

IDENTITY = Identity(namespace="team-a", name="docs", uid="uid-docs")
T = TypeVar("T")


class Counted:
    """Listings of a folder that were begun; held back while `gate` is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        real = lister.source_fingerprint

        def counted(*arguments: Any) -> str:
            self.count += 1
            assert self.gate.wait(60)
            return real(*arguments)

        monkeypatch.setattr(lister, "source_fingerprint", counted)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits until its listing is made, however busy the machine is."""
    monkeypatch.setattr(lister, "WAIT_SECONDS", 60.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", np.eye(4, dtype=np.float32))
    return tmp_path


def task(root: Path, **more: Any) -> ResolveTask:
    return ResolveTask(
        identity=IDENTITY,
        source=Location(folder=str(root / "in")),
        artifacts=Location(folder=str(root / "in" / "out")),
        tombstones=Location(folder=str(root / "in" / "gone")),
        queries=Location(folder=str(root / "in" / "queries")),
        **more,
    )


def told(of: ResolveTask, gauges: Gauges | None = None, clock: Clock | None = None) -> SourceListing:
    text = of.task_text(first_release=False)
    return SourceListing(
        ResolveTask.model_validate_json(text), source_id(text), gauges or Gauges(), clock or Clock(1000.0)
    )


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(bounded())


def asked(one: SourceListing, max_age: float = 0.0) -> SourceLook:
    return run(lambda: one.look("pod-1", "docs-1", max_age))


# ---------------------------------------------------------------- what is told


def test_the_fingerprint_is_that_of_resolve_with_everything_left_out_that_resolve_leaves_out(root: Path) -> None:
    for folder in ("out/team-a/docs/d/build-1", "gone", "queries"):
        (root / "in" / folder).mkdir(parents=True)
        write_parquet(root / "in" / folder / "no-rows-of-the-source.parquet", np.eye(4, dtype=np.float32))
    of = task(root)
    found = asked(told(of))
    assert found.fingerprint == resolve(of).fingerprint
    assert (found.pod, found.revision, found.under_way, found.reason) == ("pod-1", "docs-1", False, "")
    assert found.source == source_id(of.task_text(first_release=False))
    write_parquet(root / "in" / "b.parquet", np.eye(4, dtype=np.float32))
    assert asked(told(of)).fingerprint == resolve(of).fingerprint != found.fingerprint


def test_a_fingerprint_is_what_it_always_was() -> None:
    """Digests of every index that there is are made of it; it is put together piece by piece, for sources with many
    objects."""
    for count in (0, 1, 3, 2500):
        objects = [ObjectInfo(f'a/{7 * n % 2503}-\u00e9\U0001f600".parquet', n, f"e{n}") for n in range(count)]
        facts = sorted((item.key, item.size, item.etag) for item in objects)
        text = json.dumps(facts, separators=(",", ":"), ensure_ascii=True)
        assert fingerprint(objects) == hashlib.sha256(text.encode()).hexdigest()


def test_what_cannot_be_listed_is_told_with_its_reason(root: Path) -> None:
    gauges = Gauges()
    (root / "in" / "a.parquet").unlink()
    found = asked(told(task(root), gauges))
    assert (found.fingerprint, found.reason) == ("", "EmptySource")
    assert "no object of a known format" in found.message
    assert (gauges.source_errors, gauges.source_checked) == (1, None)


def test_more_objects_than_resolve_takes_are_refused_as_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MAX_OBJECTS", 0)
    assert asked(told(task(root))).reason == "TooManyObjects"


@pytest.mark.parametrize(
    ("refusal", "reason"), [((403, "AccessDenied"), "AccessDenied"), ((404, "NoSuchBucket"), "BucketNotFound")]
)
def test_a_refusal_of_a_real_server_is_told_as_resolve_tells_it(
    faulty: tuple[FaultyS3, str],  # noqa: F811
    refusal: tuple[int, str],
    reason: str,
) -> None:
    state, endpoint = faulty
    state.refuses = refusal
    place = Location(s3=S3(bucket="bucket", prefix="docs/", endpoint=endpoint))
    of = ResolveTask(identity=IDENTITY, source=place, artifacts=place)
    assert asked(told(of)).reason == reason
    assert {method for method, *_ in state.seen} == {"GET"}
    state.refuses = None
    assert asked(told(of)).reason == "EmptySource"


def test_a_failure_of_any_kind_is_an_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderStore, "list", lambda *_: 1 / 0)
    found = asked(told(task(root)))
    assert (found.reason, found.message) == ("ZeroDivisionError", "division by zero")


def test_a_message_is_short(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("x\n" * 5000)

    monkeypatch.setattr(FolderStore, "list", fail)
    assert len(asked(told(task(root))).model_dump_json()) < 2048


# ---------------------------------------------------------------- how often


def test_a_listing_that_is_young_enough_is_told_again(root: Path, counted: Counted) -> None:
    clock = Clock(1000.0)
    one = told(task(root), clock=clock)
    first = asked(one, 150.0)
    clock.now += 100.0
    second = asked(one, 150.0)
    assert (first.age_seconds, second.age_seconds, counted.count) == (0.0, 100.0, 1)
    clock.now += 50.0
    assert (asked(one, 150.0).age_seconds, counted.count) == (0.0, 2)


def test_nobody_makes_it_list_more_than_once_a_second(root: Path, counted: Counted) -> None:
    clock = Clock(1000.0)
    one = told(task(root), clock=clock)
    for _ in range(200):
        asked(one, 0.0)
        clock.now += 0.05
    assert counted.count == 10


def test_what_failed_is_tried_again_when_it_is_asked_for(root: Path, counted: Counted) -> None:
    clock = Clock(1000.0)
    one = told(task(root), clock=clock)
    (root / "in" / "a.parquet").rename(root / "a.parquet")
    assert asked(one, 150.0).reason == "EmptySource"
    (root / "a.parquet").rename(root / "in" / "a.parquet")
    clock.now += 5.0
    found = asked(one, 150.0)
    assert (found.reason, bool(found.fingerprint), counted.count) == ("", True, 2)


def test_a_listing_that_takes_long_holds_up_nobody_and_is_made_once(
    root: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "WAIT_SECONDS", 0.05)
    one = told(task(root))

    async def work() -> tuple[SourceLook, SourceLook]:
        counted.gate.clear()
        looks = await asyncio.gather(*(one.look("p", "r", 0.0) for _ in range(50)))
        assert all(look.under_way and not look.fingerprint for look in looks)
        counted.gate.set()
        while (found := await one.look("p", "r", 60.0)).under_way:
            await asyncio.sleep(0.01)
        return looks[0], found

    _, found = run(work)
    assert (found.fingerprint, counted.count) == (
        list_source(open_store(task(root).source, Role.SOURCE), no_data(task(root))).fingerprint,
        1,
    )


def test_the_last_good_listing_is_told_beside_what_failed_since(root: Path) -> None:
    clock = Clock(1000.0)
    one = told(task(root), clock=clock)
    good = asked(one, 150.0)
    (root / "in" / "a.parquet").unlink()
    clock.now += 200.0
    found = asked(one, 150.0)
    assert (found.fingerprint, found.age_seconds, found.reason) == (good.fingerprint, 200.0, "EmptySource")


# ---------------------------------------------------------------- what it was told


@pytest.mark.parametrize("text", ["{", "[]", '{"source": 7}', '{"identity": {"name": "n"}, "newer": true}'])
def test_what_this_image_does_not_understand_is_left_to_a_job(text: str) -> None:
    assert SourceListing.told(text, Gauges()) is None


def test_without_a_source_nothing_is_counted() -> None:
    gauges = Gauges()
    assert SourceListing.told("", gauges) is None
    assert b"vectorindex_source" not in SearcherMetrics("r", EvidenceRing(()), gauges).exposition()


def test_listings_are_counted(root: Path) -> None:
    gauges = Gauges()
    asked(told(task(root), gauges))
    text = SearcherMetrics("r", EvidenceRing(()), gauges).exposition().decode()
    assert 'vectorindex_source_errors_total{revision="r"} 0.0' in text
    assert 'vectorindex_source_checked_timestamp_seconds{revision="r"}' in text


def test_what_is_left_out_is_not_told_at_each_poll(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "in" / "notes.pdf").write_bytes(b"x")
    asked(told(task(root)))
    assert not [record for record in caplog.records if record.name == listing.__name__]


# ---------------------------------------------------------------- a searcher as it is


def test_a_searcher_lists_its_source_for_who_signs_for_it(published: Published, root: Path) -> None:  # noqa: F811
    text = task(root).task_text(first_release=False)
    wanted = resolve(task(root)).fingerprint
    request = InternalRequest("GET", f"{SOURCE_PATH}?maxAge=1.0")
    with serving(published, ME, KEY, **{SOURCE_ENV: text}) as searcher:
        port = searcher.port("admin port open")
        assert ask(port, request, {})[0] == 401
        assert ask(port, request, sign(KEY, request, Target("uid-b", "b-1"), time.time()))[0] == 421

        def look() -> SourceLook:
            status, answer = ask(port, request, sign(KEY, request, ME, time.time()))
            assert status == 200
            return SourceLook.model_validate(answer)

        until(lambda: not look().under_way)
        found = look()
        assert (found.fingerprint, found.source, found.revision) == (wanted, source_id(text), ME.revision)
        bad = InternalRequest("GET", f"{SOURCE_PATH}?maxAge=soon")
        assert ask(port, bad, sign(KEY, bad, ME, time.time()))[0] == 400


@pytest.mark.parametrize("text", ["", '{"newer": true}'])
def test_a_searcher_that_lists_no_source_says_so_and_serves(published: Published, text: str) -> None:  # noqa: F811
    request = InternalRequest("GET", f"{SOURCE_PATH}?maxAge=1.0")
    with serving(published, ME, KEY, **{SOURCE_ENV: text}) as searcher:
        status, answer = ask(searcher.port("admin port open"), request, sign(KEY, request, ME, time.time()))
        assert (status, answer["type"]) == (404, "urn:vectorindex:problem:NoSource")


MOST_OBJECTS = """
import sys
from cost import forget_peak, memory
from vectorindex_searcher.dataset.listing import source_fingerprint
from vectorindex_searcher.storage.store import MAX_OBJECTS, ObjectInfo, Role

class Full:
    role, prefix = Role.SOURCE, "docs"

    def describe(self, key):
        return key

    def list(self, prefix):
        for number in range(MAX_OBJECTS if prefix == "docs" else 0):
            yield ObjectInfo(f"docs/{'k' * int(sys.argv[1])}{number:012}.parquet", number, f"{number:032x}", 1e9)

before = memory("VmRSS")
forget_peak()
source_fingerprint(Full(), ("docs/out",))
print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize("characters", [40, 980])
def test_a_searcher_has_room_for_a_listing(characters: int) -> None:
    """As many objects as there may be, and the longest keys that S3 has."""
    assert int(in_a_process_of_its_own(MOST_OBJECTS, characters)) < LISTING_BYTES
