"""Does `collect` remove all that it is told to, and nothing else, also when it is killed at any request?

    python bench/collect.py [--quick] [--others 5000]

A real S3 server (versitygw on loopback). An index has eight artifacts of real builds, with reports, a checkpoint, a
listing, a ground truth and an unfinished upload. Beside it lie 5,000 objects of others that look as much like its own
as they can: indexes whose names begin alike, one below it, notes, an upload that is not finished. Each case begins from
there, under a prefix of its own:

    history          three artifacts go, five stay
    deleted index    everything goes
    shared           the index is deleted, and a second cluster uses one of its artifacts
    killed           each of these, killed before and after each request that changes something, then run once more
    two clusters     both use all artifacts, and delete the index at the same moment

The last two, which run often, lie beside a tenth of the others' objects.

`left`: objects and uploads that should be gone. `touched`: objects of others, or of artifacts that stay, that are gone
or were written, and uploads of theirs that were aborted. Writes bench/results/collect.md and summary.json, except with
--quick.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import results
from object_store import BUCKET, KEYS, client, object_store

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.layout import INDEX_FILE, TRAINED_FILE, Layout
from vectorindex_searcher.artifact.users import mark_used
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import S3, BuildTask, CollectTask, Identity, IndexSpec, Location
from vectorindex_searcher.storage.s3 import S3Store
from vectorindex_searcher.storage.store import Role

ARTIFACTS = tuple(f"d{number}" for number in range(8))
OLD = ARTIFACTS[:3]
MINE = Identity(namespace="team", name="docs", uid="uid-1")
CHANGES = ("put", "delete", "delete_many", "discard_unfinished")
"""Requests of a store that change something."""


class KilledError(BaseException):
    """As SIGKILL would: nothing that catches errors may see it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One case's prefix of the bucket."""

    s3: Any
    root: Path
    prefix: str
    endpoint: str

    @property
    def location(self) -> Location:
        return Location(s3=S3(bucket=BUCKET, prefix=self.prefix, endpoint=self.endpoint))

    @property
    def folder(self) -> Path:
        return self.root / BUCKET / self.prefix

    def there(self) -> dict[str, object]:
        """What identifies each object and unfinished upload, by its key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        found = {item["Key"]: (item["ETag"], item["Size"]) for page in pages for item in page.get("Contents", ())}
        uploads = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Uploads", ())
        known = {f"upload of {one['Key']}": one["UploadId"] for one in uploads}
        return {key.replace(f"{self.prefix}/", "", 1): value for key, value in (found | known).items()}

    def task(self, **fields: Any) -> CollectTask:
        return CollectTask(identity=MINE, artifacts=self.location, cluster=fields.pop("cluster", "a"), **fields)


# ---------------------------------------------------------------- what there is


def template(place: Place, source: Path, others: int) -> None:
    """The index and what lies around it. Plain objects are written as files, which the server shows as objects."""
    store = S3Store(place.location.s3, Role.ARTIFACTS)
    layout = Layout(store.prefix, MINE)
    for digest in ARTIFACTS:
        build(
            BuildTask(
                identity=MINE, artifacts=place.location, cluster="a", digest=digest,
                source=Location(folder=str(source)), index=IndexSpec(factory="Flat"),
            )
        )  # fmt: skip
        for key in (layout.report(digest, "g0"), layout.report(digest, "g1"), layout.listing(f"f{digest}")):
            store.put(key, b"{}")
    store.put(layout.checkpoints(OLD[0], "0a", TRAINED_FILE), b"x")
    store.put(layout.ground_truth("0" * 64, "arrow"), b"x")
    names = (*(f"team/docs{number}" for number in range(20)), "team/docs-old", "team2/docs", "team/docs/sub/team/docs")
    each = max(1, others // (len(names) + 1))
    for number in range(each):
        for name in names:
            _write(place, f"{name}/d{number % 8}/a-{number}/{INDEX_FILE}")
        _write(place, f"team/docs/notes/{number}.md")


def _write(place: Place, key: str) -> None:
    path = place.folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def copied(place: Place, prefix: str, shared: tuple[str, ...]) -> Place:
    """All of it once more under another prefix, with unfinished uploads and the marks of a second cluster."""
    copy = replace(place, prefix=prefix)
    shutil.copytree(place.folder, copy.folder)  # with the attributes in which the server keeps what it knows of each
    store = S3Store(copy.location.s3, Role.ARTIFACTS)
    layout = Layout(store.prefix, MINE)
    for digest in shared:
        mark_used(store, layout, digest, "b")
    for key in (layout.file(OLD[1], "killed", INDEX_FILE), f"{prefix}/team/docs2/d1/k/{INDEX_FILE}"):
        place.s3.create_multipart_upload(Bucket=BUCKET, Key=key)
    return copy


# ---------------------------------------------------------------- what is to go


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked for, what the second cluster uses, and which keys are to go: said here once more, by hand."""

    name: str
    asked: Mapping[str, Any]
    shared: tuple[str, ...] = ()

    def goes(self, key: str) -> bool:
        """Whether what has this key, below the case's prefix, is to go."""
        first, second, third, *rest = [*key.removeprefix("upload of ").split("/"), "", ""]
        if (first, second) != ("team", "docs") or third in {"notes", "sub"}:
            return False
        if third in self.shared:
            return rest[:2] == ["users", "a"]
        # What belongs to no artifact stays for whoever stays.
        return third in OLD or (bool(self.asked.get("everything")) and (third in ARTIFACTS or not self.shared))


CASES = (
    Case("history", {"digests": OLD, "building": ARTIFACTS[3:]}),
    Case("deleted index", {"everything": True}),
    Case("shared", {"everything": True}, shared=ARTIFACTS[6:7]),
)


@dataclass(slots=True)
class Row:
    """Of one case: how often it ran, what there was to remove and beside it, and the two figures."""

    name: str
    runs: int = 0
    objects: int = 0
    others: int = 0
    left: int = 0
    touched: int = 0

    def add(self, before: Mapping[str, object], after: Mapping[str, object], goes: Callable[[str], bool]) -> None:
        wanted = {key for key in before if goes(key)}
        stays = {key: value for key, value in before.items() if key not in wanted}
        self.runs += 1
        self.objects += len(wanted)
        self.others += len(stays)
        self.left += len(wanted & after.keys())
        self.touched += sum(after.get(key) != value for key, value in stays.items()) + len(after.keys() - before.keys())


@contextmanager
def changing(ends_at: int = 0, *, after: bool = False) -> Iterator[list[str]]:
    """Yields the requests that change something, as they come. Whoever makes the `ends_at`th is ended there, before it
    reaches the store or after."""
    made: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def request(*arguments: Any, **named: Any) -> Any:
            made.append(name)
            mine = len(made) == ends_at
            if mine and not after:
                raise KilledError
            answer = real(*arguments, **named)
            if mine:
                raise KilledError
            return answer

        return request

    with mock.patch.multiple(S3Store, **{name: wrapped(name, getattr(S3Store, name)) for name in CHANGES}):
        yield made


# ---------------------------------------------------------------- the cases


@dataclass(slots=True)
class Bench:
    """Runs cases, each in a copy of its own: of `whole`, or of `small`, which has a tenth of the others' objects."""

    whole: Place
    small: Place
    copies: int = 0

    def copy(self, place: Place, case: Case) -> Place:
        self.copies += 1
        return copied(place, f"copy-{self.copies}", case.shared)

    def run(self, case: Case, row: Row) -> int:
        """As asked; how many requests changed something."""
        place = self.copy(self.whole, case)
        before = place.there()
        with changing() as made:
            collect(place.task(**case.asked))
        row.add(before, place.there(), case.goes)
        shutil.rmtree(place.folder)
        return len(made)

    def run_killed(self, case: Case, row: Row, number: int, *, after: bool) -> None:
        place = self.copy(self.small, case)
        before = place.there()
        with changing(number, after=after), suppress(KilledError):
            collect(place.task(**case.asked))
            raise RuntimeError(f"{case.name}: request {number} never came")
        collect(place.task(**case.asked))
        row.add(before, place.there(), case.goes)
        shutil.rmtree(place.folder)

    def run_both(self, row: Row) -> None:
        """Two clusters that use all artifacts leave at the same moment. One that came first may have left something to
        the other; a second run of either finds nothing more to do."""
        case = Case("two clusters", {"everything": True}, shared=ARTIFACTS)
        place = self.copy(self.small, case)
        before = place.there()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(collect, place.task(cluster=one, **case.asked)) for one in "ab"]:
                done.result()
        for one in "ab":
            collect(place.task(cluster=one, **case.asked))
        row.add(before, place.there(), replace(case, shared=()).goes)
        shutil.rmtree(place.folder)


def measure(bench: Bench, *, quick: bool) -> list[Row]:
    rows = []
    for case in CASES:
        row, ended = Row(case.name), Row(f"{case.name}, killed")
        changes = bench.run(case, row)
        points = [(number, after) for number in range(1, changes + 1) for after in (False, True)]
        for number, after in points[:: 11 if quick else 1]:
            bench.run_killed(case, ended, number, after=after)
            print(f"{ended.name}: request {number} of {changes}", file=sys.stderr)
        rows += [row, ended]
    both = Row("two clusters")
    for _ in range(2 if quick else 50):
        bench.run_both(both)
    return [*rows, both]


def page(rows: Sequence[Row]) -> str:
    head = ["case", "runs", "objects to go", "other objects", "left", "touched"]
    table = results.table(head, [[r.name, r.runs, r.objects, r.others, r.left, r.touched] for r in rows])
    return f"""# What `collect` removes

`python bench/collect.py`, {results.stamp()}.
{results.machine()}.

A real S3 server. Objects are counted over all runs of a case; *left* should be gone and is not, *touched* should be as
it was and is not. *killed*: ended right before or right after each request that changes something, in turn, and then
run once more. *two clusters*: both delete the index at the same moment, and each runs once more. These lie beside a
tenth of the others' objects.

{table}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    parser.add_argument("--others", type=int, default=5_000, help="objects of others (default %(default)s)")
    options = parser.parse_args()
    for role in Role:
        os.environ[f"{role.env_prefix}AWS_ACCESS_KEY_ID"], os.environ[f"{role.env_prefix}AWS_SECRET_ACCESS_KEY"] = KEYS
    with tempfile.TemporaryDirectory(prefix="collect-") as name, object_store(Path(name) / "s3") as endpoint:
        s3 = client(endpoint)
        s3.create_bucket(Bucket=BUCKET)
        source = Path(name) / "source"
        source.mkdir()
        np.save(source / "a.npy", np.random.default_rng(0).standard_normal((600, 8), dtype=np.float32))
        others = 200 if options.quick else options.others
        whole, small = (Place(s3, Path(name) / "s3", prefix, endpoint) for prefix in ("whole", "small"))
        template(whole, source, others)
        template(small, source, others // 10)
        rows = measure(Bench(whole, small), quick=options.quick)
    text = page(rows)
    print(text)
    left, touched = sum(row.left for row in rows), sum(row.touched for row in rows)
    if not options.quick:
        results.write_page("collect", text)
        results.add_to_summary({"collect.left": left, "collect.touched_of_others": touched})
    return int(left or touched)


if __name__ == "__main__":
    sys.exit(main())
