"""What is really so, whatever anybody believes: the data in the source, the artifacts, how good they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from vectorindex_operator.api.v1alpha1 import Gate
from vectorindex_searcher.contract import (
    AUTO_SHARDS,
    LIVE_QUERIES,
    BuildResult,
    BuildTask,
    CollectResult,
    CollectTask,
    Device,
    ExitCode,
    Failure,
    FreshLook,
    FreshTask,
    Location,
    Model,
    OperatingPoint,
    Outcome,
    OutcomesResult,
    OutcomesTask,
    PartitionResult,
    PartitionTask,
    PublishResult,
    PublishTask,
    RefusedFile,
    ResolveResult,
    ResolveTask,
    SegmentRecall,
    ValidateResult,
    ValidateTask,
    most_fresh,
)

AUTO_COMES_TO = 3
"""Shards, whatever the data: what a searcher holds is nothing here."""
DEFAULT_FLOOR = Gate().recall.min
Answer = tuple[int, Model | None]
"""Exit code and the last word of a verb."""


def sha(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Data:
    """A state of the source. `bad`: what `build` says about it; `unreadable`: what `resolve` says."""

    name: str
    rows: int = 10_000
    dimension: int = 8
    bad: Failure | None = None
    unreadable: Failure | None = None
    replaced: bool = False
    """Whether the objects of the state before are gone, so that a build of that one cannot read them any more."""

    @property
    def fingerprint(self) -> str:
        return sha("data", self.name)


@dataclass(frozen=True, slots=True)
class FreshFile:
    """New rows beside the source. `bad`: why it is refused. `zero_results`: of all queries, once it is answered."""

    rows: int = 10
    bad: str = ""
    zero_results: float = 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """How an artifact behaves."""

    recall: float = 0.98
    build_exits: tuple[int, ...] = ()
    """Exit codes of the first build pods; those after them succeed."""
    zero_results: float = 0.0
    zero_in: tuple[tuple[str, float], ...] = ()
    """The same for single classes of queries."""
    filtered_zero: float = 0.0
    """Share of the queries with a filter whose answer is empty."""
    errors: float = 0.0
    live: tuple[float, float] | None = None
    """Live recall at the default operating point and at the conservative one; None: nothing measures it."""
    orders: float = 10.0
    """What its users order a second, as Prometheus says."""
    refuses: str = ""
    """Reason with which every searcher pod refuses to serve it."""
    hangs: bool = False
    """It answers no query that is sent to it in shadow."""
    crashes: bool = False
    """Every pod dies soon after it got the traffic, and again after each restart."""


@dataclass(frozen=True, slots=True)
class Fates:
    """What becomes of queries with a filter, as shares of all queries. `compared`: whether its searchers know what the
    revision before took."""

    answered: float
    lost: float
    refused: float
    compared: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What `validate` found. `live`: of what users ask, where it was asked for and there were some."""

    low: float
    live: float | None

    def passes(self, spec: Mapping[str, Any]) -> bool:
        gate = spec.get("gate", {})
        floor = gate.get("recall", {}).get("min", DEFAULT_FLOOR)
        asked = "live" in gate.get("queries", {})
        return self.low >= floor and not (asked and self.live is not None and self.live < floor)


@dataclass(slots=True)
class Truth:
    """Data, artifacts, qualities by factory. Answers the verbs as the data plane would."""

    data: Data = field(default_factory=lambda: Data("d1"))
    before: list[str] = field(default_factory=list)
    """Fingerprints of earlier states whose objects can still be read."""
    fresh: dict[str, FreshFile] = field(default_factory=dict)
    """Files of fresh rows, by name."""
    snapshots: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    """The names that each snapshot of them has."""
    taken_in: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """By the fingerprint of a listing: that of the source alone, and the fresh files in it."""
    bad: dict[str, Failure] = field(default_factory=dict)
    """What is wrong with earlier states, by fingerprint."""
    qualities: dict[str, Quality] = field(default_factory=dict)
    places: dict[str, Data] = field(default_factory=dict)
    """Data below other prefixes than the first."""
    published: dict[str, BuildResult] = field(default_factory=dict)
    plans: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """Bucket and digest -> the plan of an artifact in shards, and of how many."""
    parts: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """Bucket, digest and number of each shard that is built -> its plan."""
    made: dict[tuple[str, str], BuildResult] = field(default_factory=dict)
    """Bucket and digest -> what the build of a shard said."""
    stored: set[tuple[str, str]] = field(default_factory=set)
    """Bucket and digest of every artifact."""
    collected: set[str] = field(default_factory=set)
    """Digests of artifacts that a Job removed, and nobody has built again."""
    removed: int = 0
    """How many there were."""
    collect_exits: tuple[int, ...] = ()
    """Exit codes of the next pods that remove artifacts; those after them succeed."""
    decided: dict[str, list[Outcome]] = field(default_factory=dict)
    """What was said of revisions beside the artifacts, by bucket."""
    outcome_exits: tuple[int, ...] = ()
    """Exit codes of the next pods that write or read that; those after them succeed."""
    users: dict[tuple[str, str], str] = field(default_factory=dict)
    """Uid of the VectorIndex that has last built, or found, an artifact."""
    harmed: set[str] = field(default_factory=set)
    """Digests of artifacts that were removed for a VectorIndex, and used by another one of its name."""
    lost: set[str] = field(default_factory=set)
    """Digests of artifacts that somebody removed from the store."""
    artifacts_denied: bool = False
    """Whether searchers cannot look whether an artifact is there."""
    measured: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    """By digest and image."""
    builds: int = 0
    """Builds that ended well, with those that found their artifact published."""
    tried: dict[str, int] = field(default_factory=dict)
    gpu: bool = True
    secret: bool = True
    room: bool = True
    """Whether searcher pods find a node."""
    loading: tuple[float, float] = (0.5, 5.0)
    """Seconds, at least and at most, in which a searcher loads an artifact."""
    refused: frozenset[str] = frozenset()
    """Kinds that nobody may write."""
    mirrors: bool = True
    """Whether the image of searchers knows what a shadow is."""
    kept_apart: bool = False
    """Whether no searcher reaches the admin port of another one."""
    other_deleted: bool = False
    """Whether two revisions never have the same deleted ids."""
    lists_source: bool = True
    """Whether the image of searchers can."""
    source_denied: bool = False
    """Whether searchers may not list the source, though Jobs may."""
    source_lies: bool = False
    """Whether searchers say each time that it is something new."""
    no_figures: bool = False
    """Whether Prometheus does not answer."""
    no_webhook: bool = False
    """Whether the webhook takes nothing."""
    silent_pods: int = 0
    """Of each revision so many never tell what they counted."""
    segments: tuple[tuple[str, float], ...] = (("other", 1.0),)
    """Classes of queries, and their shares."""
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Metadata columns of the artifact of a digest; each holds text."""
    filters: tuple[tuple[str, float], ...] = ()
    """Columns that users' filters name, with their shares of the queries."""
    queries_missing: bool = False
    """Whether `validate` does not find its queries."""
    live_recall: float = 0.98
    """Of what users ask, where the gate asks for it and there are users."""
    queries_per_second: float = 40.0

    def quality(self, factory: str, fingerprint: str) -> Quality:
        """Qualities are said for a factory ("B"), or for a factory on a state of the data ("B@d2")."""
        source = self.taken_in.get(fingerprint, (fingerprint, ()))[0]
        exact = next((q for key, q in self.qualities.items() if _is(key, factory, source)), None)
        return exact or self.qualities.get(factory, Quality())

    def served(self, digest: str) -> Quality:
        """How the artifact of a digest behaves."""
        built = self.published.get(digest)
        return self.quality(built.factory, built.fingerprint) if built is not None else Quality()

    def fates(self, digest: str, before: Mapping[str, str] | None) -> Fates:
        """What becomes of users' filters. `before`: columns of the revision before it, where it is known."""
        own, old = self.columns.get(digest, ()), before or {}
        shares = {True: 0.0, False: 0.0}
        lost = 0.0
        for column, share in self.filters:
            shares[column in own] += share
            lost += share if column in old and column not in own else 0.0
        return Fates(shares[True], lost, shares[False] - lost, compared=before is not None)

    def there(self, place: str, digest: str) -> bool:
        """Whether a bucket holds the artifact of a digest."""
        return (place, digest) in self.stored and digest not in self.lost

    def put(self, data: Data) -> None:
        """The source changes."""
        if self.data.bad is not None:
            self.bad[self.data.fingerprint] = self.data.bad
        self.before = [] if data.replaced else [*self.before, self.data.fingerprint]
        self.data = data

    def _below(self, source: Location) -> Data:
        return self.places.get(source.s3.prefix, self.data) if source.s3 is not None else self.data

    def resolve(self, task: ResolveTask) -> Answer:
        data = self._below(task.source)
        if data.unreadable is not None:
            return int(ExitCode.BAD_DATA), data.unreadable
        names = sorted(name for name, one in self.fresh.items() if task.fresh is not None and not one.bad)
        fingerprint = Data("+".join([data.name, *names])).fingerprint
        self.taken_in[fingerprint] = (data.fingerprint, frozenset(names))
        result = ResolveResult(
            fingerprint=fingerprint,
            objects=3,
            bytes=data.rows * 64,
            rows=data.rows,
            dimension=data.dimension,
            source=data.fingerprint if names else None,
            fresh=len(names) or None,
        )
        return 0, result

    def fresh_look(self, digest: str, task: FreshTask) -> FreshLook:
        """What a searcher of an artifact finds; whoever sees a change publishes the next snapshot, of all files."""
        built = self.published[digest]
        absorbed = self.taken_in.get(built.fingerprint, ("", frozenset()))[1]
        own = {name: one for name, one in self.fresh.items() if name not in absorbed}
        refused = [RefusedFile(object=name, reason=one.bad, message="no") for name, one in own.items() if one.bad]
        most, _ = most_fresh(task.max_rows, built.count)
        if self.snapshots[-1] != frozenset(self.fresh):
            self.snapshots.append(frozenset(self.fresh))
        good = [one for one in own.values() if not one.bad]  # as they came, the oldest first
        sums = list(accumulate(one.rows for one in good))
        there = [one for one, rows in zip(good, sums, strict=True) if rows <= most]
        full = len(there) < len(good)
        reason = refused[0].reason if refused else "TooManyFreshRows" if full else ""
        return FreshLook(
            number=len(self.snapshots) - 1,
            rows=sum(one.rows for one in there),
            files=len(there),
            full=full,
            refused=tuple(refused),
            reason=reason,
        )

    def partition(self, task: PartitionTask) -> Answer:
        place = bucket(task.artifacts), task.digest
        self.users[place] = task.identity.uid
        data, planned = self._below(task.source), place in self.plans
        if not planned:
            if (wrong := self._unreadable(task, data)) is not None:
                return wrong
            number = AUTO_COMES_TO if task.shards == AUTO_SHARDS else task.shards
            self.plans[place] = sha("plan", task.digest, task.attempt), number
        number = self.plans[place][1]
        rows = data.rows // number
        result = PartitionResult(
            digest=task.digest,
            plan_sha256=self.plans[place][0],
            fingerprint=task.fingerprint,
            shards=number,
            count=data.rows,
            counts=(rows,) * number,
            dimension=data.dimension,
            factory=task.index.factory,
            bytes=data.rows * 64,
            duration_seconds=5.0,
            reused=planned,
        )
        return 0, result

    def _unreadable(self, task: BuildTask, data: Data) -> Answer | None:
        source = self.taken_in.get(task.fingerprint, (task.fingerprint, ()))[0]
        if source != data.fingerprint and source not in self.before:
            gone = Failure(reason="SourceChanged", message="a listed object is gone", object="part-0.parquet")
            return int(ExitCode.RETRY), gone
        bad = data.bad if source == data.fingerprint else self.bad.get(source)
        return (int(ExitCode.BAD_DATA), bad) if bad is not None else None

    def publish(self, task: PublishTask) -> Answer:
        place = bucket(task.artifacts), task.digest
        self.users[place] = task.identity.uid
        plan, shards = self.plans.get(place, ("", 0))
        if not plan:
            return int(ExitCode.RETRY), Failure(reason="PlanNotFound", message="there is no plan")
        missing = [number for number in range(shards) if self.parts.get((*place, number)) != plan]
        if missing:
            return int(ExitCode.RETRY), Failure(reason="ShardMissing", message=f"shard {missing[0]} is not built")
        self.builds += 1
        done = self.published.get(task.digest)
        if done is not None and place in self.stored:
            return 0, done.model_copy(update={"reused": True})
        made = self.made[place]
        told = made.model_dump() | {"manifest_sha256": sha("whole", plan), "shards": shards, "plan_sha256": plan}
        whole = PublishResult.model_validate(told | {"conservative_point": None})
        self.published[task.digest] = whole
        self.stored.add(place)
        self.collected.discard(task.digest)
        return 0, whole

    def _of_no_plan(self, task: BuildTask, place: tuple[str, str]) -> Answer | None:
        """What a build of a shard ends with that has no plan, or a part that is there already."""
        if place not in self.plans:
            return int(ExitCode.RETRY), Failure(reason="PlanNotFound", message="there is no plan")
        assert task.shard is not None
        there = self.parts.get((*place, task.shard.number)) == self.plans[place][0]
        return (0, self.made[place].model_copy(update={"reused": True})) if there else None

    def build(self, task: BuildTask, *, gpu: bool) -> Answer:
        place = bucket(task.artifacts), task.digest
        if task.shard is not None and (known := self._of_no_plan(task, place)) is not None:
            return known
        done = self.published.get(task.digest)
        self.users[place] = task.identity.uid
        if task.shard is None and done is not None and place in self.stored:
            self.builds += 1
            return 0, done.model_copy(update={"reused": True})
        data = self._below(task.source)
        if task.shard is None and (wrong := self._unreadable(task, data)) is not None:
            return wrong
        exits = self.quality(task.index.factory, task.fingerprint).build_exits
        tried = self.tried[task.digest] = self.tried.get(task.digest, 0) + 1
        if tried <= len(exits):
            return exits[tried - 1], None
        point = OperatingPoint(params={"nprobe": 4}, recall=0.98, recall_low=0.97, latency_us=100.0)
        wide = OperatingPoint(params={"nprobe": 16}, recall=0.995, recall_low=0.99, latency_us=300.0)
        result = BuildResult(
            digest=task.digest,
            attempt=task.attempt,
            manifest_sha256=sha("manifest", task.digest),
            fingerprint=task.fingerprint,
            count=data.rows,
            dimension=data.dimension,
            factory=task.index.factory,
            device=Device.GPU if gpu else Device.CPU,
            device_reason=task.device_reason,
            duration_seconds=12.0,
            peak_memory_bytes=2**28,
            index_bytes=2**26,
            resident_bytes=2**27,
            faiss_version="1.15.1",
            default_point=point,
            conservative_point=wide,
        )
        self.columns[task.digest] = task.columns.metadata
        if task.shard is not None:
            self.made[place] = result
            self.parts[(*place, task.shard.number)] = self.plans[place][0]
            return 0, result
        self.published[task.digest] = result
        self.stored.add(place)
        self.collected.discard(task.digest)
        self.builds += 1
        return 0, result

    def validate(self, task: ValidateTask, image: str) -> Answer:
        built = self.published.get(task.digest)
        if (
            built is None
            or (bucket(task.artifacts), task.digest) not in self.stored
            or built.manifest_sha256 != task.manifest_sha256
        ):
            return int(ExitCode.BUG), Failure(reason="ManifestMismatch", message="no such artifact")
        if self.queries_missing:
            return int(ExitCode.SOURCE_MISSING), Failure(reason="EmptyQueries", message="no object below queries/")
        recall = self.served(task.digest).recall
        asked, live = task.live is not None, None
        if task.live is not None and task.live.addresses:
            low = self.live_recall - 0.005
            live = (SegmentRecall(segment=LIVE_QUERIES, queries=500, recall=self.live_recall, recall_low=low),)
        found = Measured(recall - 0.005, self.live_recall if live else None)
        self.measured.setdefault((task.digest, image), []).append(found)
        result = ValidateResult(
            gate_hash=task.gate_hash,
            k=task.k,
            confidence=task.confidence,
            overall=SegmentRecall(queries=1000, recall=recall, recall_low=recall - 0.005),
            count=built.count,
            p50_ms=0.5,
            p95_ms=1.0,
            resident_bytes=2**27,
            canary_queries=300,
            canary_recall=recall,
            live=live,
            live_note=("there were some" if live else "nobody to ask") if asked else None,
            column_types="s" * len(self.columns.get(task.digest, ())) or None,
            report_sha256=sha("report", task.digest, task.gate_hash),
        )
        return 0, result

    def outcomes(self, task: OutcomesTask) -> Answer:
        if self.outcome_exits:
            code, *rest = self.outcome_exits
            self.outcome_exits = tuple(rest)
            return code, None
        place = bucket(task.artifacts)
        known = self.decided.setdefault(place, [])
        known += [one for one in task.write if one not in known]
        last = {one.revision: one for one in sorted(known, key=lambda one: one.at)}
        good = [one for one in last.values() if one.build is not None and self.there(place, one.digest)]
        good.sort(key=lambda one: one.at, reverse=True)
        bad = tuple(one for one in last.values() if one.build is None)
        return 0, OutcomesResult(written=len(task.write), found=(*good[:2], *bad) if task.restore else ())

    def collect(self, task: CollectTask) -> Answer:
        if self.collect_exits:
            code, *rest = self.collect_exits
            self.collect_exits = tuple(rest)
            return code, None
        place, uid = bucket(task.artifacts), task.identity.uid
        there = {one for one in self.stored if one[0] == place and (task.everything or one[1] in task.digests)}
        self.harmed |= {one[1] for one in there if task.everything and self.users[one] != uid}
        self.stored -= there
        digests = set(task.digests) | {one[1] for one in there}
        self.plans = {key: plan for key, plan in self.plans.items() if key[0] != place or key[1] not in digests}
        self.parts = {key: plan for key, plan in self.parts.items() if key[0] != place or key[1] not in digests}
        self.collected |= {digest for _, digest in there}
        self.removed += len(there)
        found = len(there)
        return 0, CollectResult(artifacts=found, objects=9 * found, bytes=0, uploads=0, left=0, unknown=0)


def bucket(place: Location) -> str:
    return place.s3.bucket if place.s3 is not None else ""


def _is(key: str, factory: str, fingerprint: str) -> bool:
    name, _, data = key.partition("@")
    return bool(data) and name == factory and Data(data).fingerprint == fingerprint
