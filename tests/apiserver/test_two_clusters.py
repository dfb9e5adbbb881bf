"""Two clusters that have one prefix of a bucket, both at work at any time: neither harms what the other one serves.

Each is a thread that does with the verbs' own code what its operator's Jobs and its searchers do, in an order of its
own. The server is a real one.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from apiserver.test_object_store import keys, place, server

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.layout import SERVED_FILES, VECTORS_FILE, Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.artifact.publish import download_verified
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import S3, BuildTask, CollectTask, Identity, IndexSpec, Location, ValidateTask
from vectorindex_searcher.errors import ChecksumMismatch, RetryableError
from vectorindex_searcher.proof.report import load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.s3 import S3Store
from vectorindex_searcher.storage.store import Role

__all__ = ["place", "server"]  # the fixtures

DIGESTS = ("d1", "d2")
ROUNDS = 8
DONE = TypeVar("DONE")


@dataclass
class Cluster:
    """`serves`: by digest, the SHA-256 of the manifest and of the report that its revision froze."""

    name: str
    artifacts: Location
    source: Location
    work: Path
    serves: dict[str, tuple[str, str]] = field(default_factory=dict)
    did: Counter[str] = field(default_factory=Counter)

    @property
    def identity(self) -> Identity:
        """One namespace and name in both; each has made the index for itself."""
        return Identity(namespace="shop", name="products", uid=f"uid-{self.name}")

    def live(self, seed: int) -> None:
        """Rollouts, pods that come, what falls out of the history, and now and then the index is deleted."""
        lot = random.Random(seed)
        for number in range(ROUNDS):
            digest = lot.choice(DIGESTS)
            if lot.random() < 0.1:
                self.remove(everything=True)
            elif digest not in self.serves:
                self.roll_out(digest)
            elif lot.random() < 0.5:
                self.remove(digest)
            for one in self.serves:
                self.start_pod(one, self.work / f"{self.name}-{number}-{one}")

    def roll_out(self, digest: str) -> None:
        where = {"identity": self.identity, "digest": digest, "cluster": self.name, "artifacts": self.artifacts}
        # Of one name in both, as two operators would give it that know nothing of each other.
        job = BuildTask(**where, source=self.source, index=IndexSpec(factory="Flat"), attempt="build")

        def proven() -> tuple[str, str]:
            built = build(job)
            self.did["found" if built.reused else "built"] += 1
            gate = ValidateTask(**where, manifest_sha256=built.manifest_sha256, gate_hash="g1")
            return built.manifest_sha256, validate(gate).report_sha256

        self.serves[digest] = self._tried_again(proven)

    def start_pod(self, digest: str, cache: Path) -> None:
        """All that a searcher needs, byte by byte: no try again, since nothing may lack even for a moment."""
        manifest_sha256, report_sha256 = self.serves[digest]
        store = S3Store(self._s3, Role.ARTIFACTS)
        layout = Layout(store.prefix, self.identity)
        manifest, _ = load_manifest(store, layout, digest, manifest_sha256)
        download_verified(store, layout, manifest, cache, (*SERVED_FILES, VECTORS_FILE))
        report, _ = load_report(store, layout, digest, "g1", report_sha256)
        for file in report.files:
            assert store.head(layout.report(digest, "g1", file.name)) is not None
        self.did["pods"] += 1

    def remove(self, *digests: str, everything: bool = False) -> None:
        for digest in DIGESTS if everything else digests:
            self.serves.pop(digest, None)
        building = () if everything else tuple(one for one in DIGESTS if one not in digests)
        of = {"identity": self.identity, "cluster": self.name, "artifacts": self.artifacts, "building": building}
        done = collect(CollectTask(**of, digests=digests, everything=everything))
        self.did["left to the other"] += len(done.stays)
        self.did["removed"] += done.artifacts

    @property
    def _s3(self) -> S3:
        assert self.artifacts.s3 is not None
        return self.artifacts.s3

    def _tried_again(self, job: Callable[[], DONE]) -> DONE:
        """As Kubernetes does with a Job whose pod says that it may go well the next time."""
        for _ in range(20):
            try:
                return job()
            except (RetryableError, ChecksumMismatch):
                self.did["tried again"] += 1
                time.sleep(0.02)
        raise AssertionError("it never went well")


@pytest.mark.parametrize("seed", range(2))
def test_neither_ever_lacks_what_it_serves_and_the_last_leaves_nothing(
    place: tuple[S3, Path], tmp_path: Path, seed: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "a.npy", np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32))
    where = (Location(s3=place[0]), Location(folder=str(source)), tmp_path)
    clusters = [Cluster(name, *where) for name in ("a", "b")]
    failed: list[BaseException] = []

    def run(one: Cluster, own: int) -> None:
        try:
            one.live(own)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one, 2 * seed + n)) for n, one in enumerate(clusters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print({one.name: dict(one.did) for one in clusters})
    assert not failed, failed
    for one in clusters:
        one.remove(everything=True)
    assert keys(S3Store(place[0], Role.ARTIFACTS)) == []
    assert all(one.did["pods"] for one in clusters)
