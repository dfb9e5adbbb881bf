"""Searcher pods as whoever talks to them finds them: their admin port, their leases, how long they take connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace

from simulator.clock import START, Clock
from simulator.mirrors import Mirrors
from simulator.pods import is_ready, task_of, was_ready
from simulator.points import Points
from simulator.store import Json, Store
from simulator.truth import Fates, Quality, Truth, sha

from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    COLUMNS_BEFORE_ENV,
    FILTERED,
    FRESH_ENV,
    FRESH_PATH,
    INTERNAL_KEY_ENV,
    LATER_COUNTERS,
    RERANKABLE,
    RING_SECONDS,
    ROUTER,
    SIGNATURE_HEADER,
    SOURCE_ENV,
    TARGET_HEADER,
    TASK_ENV,
    ArtifactLook,
    Evidence,
    EvidenceBucket,
    Found,
    FreshOrder,
    FreshTask,
    InternalRequest,
    LeaseState,
    MirrorLease,
    PairEvidence,
    PointOrder,
    Sender,
    ServingPoint,
    SourceLook,
    Target,
    TrafficLease,
    open_shadow_key,
    shadow_key,
    source_id,
    verify,
)

GRACE_SECONDS = 5.0
"""For so long an ending pod takes new connections (serve/settings.py)."""


class Searchers:
    """`share(revision, start, stop)`: seconds of the queries that it answered then."""

    def __init__(self, store: Store, truth: Truth, clock: Clock) -> None:
        self.store, self.truth, self.clock = store, truth, clock
        self.share: Callable[[str, float, float], float] = lambda revision, start, stop: 0.0
        self.mirrors = Mirrors(clock, lambda revision, start, stop: self.share(revision, start, stop))
        self.points = Points(clock)
        self.told_to_drain: Callable[[str], None] = lambda pod: None
        self.skews: tuple[float, ...] = (0.0,)
        """How far the pods' clocks are ahead: each pod has one of them."""
        self.shards_ready: Callable[[str], set[int]] = lambda revision: set()
        """Numbers of the shards of a revision that answer routers."""
        self.mute: Callable[[str], bool] = lambda pod: False
        self.lived: dict[str, str] = {}
        """Address -> revision of the searcher that last had it."""
        self._ending: dict[str, float] = {}
        """Since when a pod is ending."""
        self._fresh_off: dict[str, float] = {}
        """Revision -> until when its pods answer no fresh rows."""
        self._draining: dict[tuple[str, int], float] = {}
        """Process of a pod (by its restarts) -> until when it closes connections."""
        self._buckets: dict[tuple[str, float], tuple[list[EvidenceBucket], int]] = {}
        """Per revision and clock: its finished buckets, and up to which number they are counted."""

    # ------------------------------------------------------------ connections

    def at(self, address: str) -> Json | None:
        """The pod that has an address now."""
        return next((p for p in self.store.of_kind("Pod") if p["status"].get("podIP") == address), None)

    def accepting(self, address: str) -> Json | None:
        """The searcher that answers a connection to an address: loaded, and not past its grace."""
        pod = self.at(address)
        if pod is None or pod["metadata"]["labels"].get(labels.COMPONENT) != labels.SEARCHER:
            return None
        began = self._ending.get(pod["metadata"]["name"])
        if began is not None:
            return pod if was_ready(pod) and self.clock.now < began + GRACE_SECONDS else None
        return pod if is_ready(pod) else None

    def last_at(self, address: str) -> str:
        return self.lived.get(address, "")

    def ends(self, pod: str) -> None:
        """It got SIGTERM."""
        self._ending.setdefault(pod, self.clock.now)

    def closing(self, pod: Json) -> bool:
        """Whether it closes each connection after its answer."""
        return pod["metadata"]["name"] in self._ending or self.draining(pod)

    def draining(self, pod: Json) -> bool:
        return self.clock.now < self._draining.get(_process(pod), 0.0)

    # ------------------------------------------------------------ the admin port

    def takes(self, pod: Json, request: InternalRequest, headers: dict[str, str]) -> bool:
        """Whether a pod takes a signed request, as a searcher decides it: by its key, and by whom it is for."""
        if pod["metadata"]["labels"].get(labels.COMPONENT) != labels.SEARCHER:
            return False
        env = _env(pod)
        task = json.loads(env[TASK_ENV])
        me = Target(task["identity"]["uid"], task["revision"], ROUTER if "shards" in task else 0)
        sent = (headers[TARGET_HEADER], headers.get(SIGNATURE_HEADER, ""))
        return verify(env.get(INTERNAL_KEY_ENV, ""), request, me, *sent, self._clock_of(pod)) is Sender.GENUINE

    def tell(self, addresses: Iterable[str], request: InternalRequest, headers: dict[str, str]) -> None:
        """POST /v1/lease."""
        lease = TrafficLease.model_validate_json(request.body)
        for address in addresses:
            pod = self.accepting(address)
            if pod is None or not self.takes(pod, request, headers):
                continue
            until = self.clock.now + lease.ttl_seconds if lease.state is LeaseState.DRAINING else 0.0
            self._draining[_process(pod)] = until
            if until:
                self.told_to_drain(pod["metadata"]["name"])

    def order(self, addresses: Iterable[str], request: InternalRequest, headers: dict[str, str]) -> None:
        """POST /v1/point, or POST /v1/fresh, which a pod takes while it still loads."""
        for address in addresses:
            pod = self.at(address)
            if pod is None or not self.takes(pod, request, headers):
                continue
            if request.path == FRESH_PATH:
                off = FreshOrder.model_validate_json(request.body)
                until = self.clock.now + off.ttl_seconds if off.off else 0.0
                self._fresh_off[pod["metadata"]["labels"][labels.REVISION]] = until
            else:
                self.points.order(_process(pod), PointOrder.model_validate_json(request.body))

    def answers_fresh(self, revision: str) -> bool:
        """Whether its pods answer fresh rows, which all are told alike."""
        return self.clock.now >= self._fresh_off.get(revision, 0.0)

    def fresh(self, question: FreshQuestion, request: InternalRequest, headers: dict[str, str]) -> FreshAnswer:
        """GET /v1/fresh of one pod."""
        pod = self.at(question.address)
        silent = self.truth.silent_pods or self.mute(question.pod)
        if silent or pod is None or not is_ready(pod) or not self.takes(pod, request, headers):
            return FreshAnswer(problem="no whole answer")
        text = _env(pod).get(FRESH_ENV, "")
        if not text:
            return FreshAnswer(problem="404", unable=True)
        look = self.truth.fresh_look(task_of(pod)["digest"], FreshTask.model_validate_json(text))
        off = not self.answers_fresh(pod["metadata"]["labels"][labels.REVISION])
        return FreshAnswer(look.model_copy(update={"off": off}))

    def answering(self, revision: str) -> set[ServingPoint]:
        """Where the ready pods of a revision answer."""
        pods = [p for p in self.store.of_kind("Pod") if p["metadata"]["labels"].get(labels.REVISION) == revision]
        return {self.points.of(_process(pod)) for pod in pods if is_ready(pod)}

    def evidence(
        self,
        pods: Iterable[tuple[str, str]],
        since: float,
        received: float,
        request: InternalRequest,
        headers: dict[str, str],
    ) -> tuple[PodEvidence, ...]:
        """GET /v1/evidence of each (name, address). `since`: on the pods' own clocks, as far as anybody knows them."""
        answers = []
        for number, (name, address) in enumerate(sorted(pods)):
            pod = self.at(address)
            silent = number < self.truth.silent_pods or self.mute(name)
            if silent or pod is None or not is_ready(pod) or not self.takes(pod, request, headers):
                answers.append(PodEvidence(name, None, received))
                continue
            owner, now = pod["metadata"]["labels"][labels.REVISION], self._clock_of(pod)
            ahead = now - self.clock.now
            first = int(max(since + ahead, now - RING_SECONDS) // BUCKET_SECONDS)
            rows = tuple(row for row in self._rows(owner, pod, ahead) if row.bucket >= first)
            quality = self.truth.served(task_of(pod)["digest"])
            point, points = "", tuple[str, ...]()
            if quality.live is not None:
                rows = tuple(self.points.counted(_process(pod), rows, quality, ahead))
                point, points = self.points.of(_process(pod)).value, tuple(ServingPoint)
            told = PodCounts.of(Evidence.model_construct(pod=name, revision=owner, now=now, buckets=rows))
            tells = LATER_COUNTERS if COLUMNS_BEFORE_ENV in _env(pod) else (FILTERED, RERANKABLE)
            told = replace(told, tells=frozenset(tells), point=point, points=points)
            answers.append(PodEvidence(name, told, received))
        return tuple(answers)

    def source(
        self, question: SourceQuestion, request: InternalRequest, headers: dict[str, str]
    ) -> SourceLook | SourceAnswer:
        """GET /v1/source of one pod, which goes by what it was told to list."""
        pod, truth = self.at(question.address), self.truth
        silent = truth.silent_pods or self.mute(question.pod)
        if silent or pod is None or not is_ready(pod) or not self.takes(pod, request, headers):
            return SourceAnswer(problem="no whole answer")
        text = _env(pod).get(SOURCE_ENV, "")
        if not text or not truth.lists_source:
            return SourceAnswer(problem="404", unable=True)
        fingerprint, reason = truth.data.fingerprint, ""
        if truth.source_lies:
            fingerprint = sha("lie", self.clock.now)
        elif truth.source_denied or truth.data.unreadable is not None:
            fingerprint, reason = "", "AccessDenied"
        name, owner = pod["metadata"]["name"], pod["metadata"]["labels"][labels.REVISION]
        return SourceLook(
            pod=name,
            revision=owner,
            source=source_id(text),
            fingerprint=fingerprint,
            reason=reason,
            artifacts=True,
            artifact=self._artifact(pod, question.artifact) if question.artifact else None,
        )

    def _artifact(self, pod: Json, digest: str) -> ArtifactLook:
        """Below its own place."""
        if self.truth.artifacts_denied:
            return ArtifactLook(digest=digest, found=Found.UNKNOWN, reason="AccessDenied")
        there = self.truth.there(task_of(pod)["artifacts"]["s3"]["bucket"], digest)
        return ArtifactLook(digest=digest, found=Found.PRESENT if there else Found.ABSENT)

    def _clock_of(self, pod: Json) -> float:
        number = int(pod["metadata"]["name"].rpartition("-")[2])
        return self.clock.now + self.skews[number % len(self.skews)]

    # ------------------------------------------------------------ shadows

    def mirror(self, addresses: Iterable[str], request: InternalRequest, headers: dict[str, str]) -> None:
        """POST /v1/mirror. A key that nobody sealed for this pod, or that its receivers do not have, is refused."""
        lease = MirrorLease.model_validate_json(request.body)
        for address in addresses:
            pod = self.accepting(address)
            if pod is None or not self.truth.mirrors or not self.takes(pod, request, headers):
                continue
            key = open_shadow_key(lease.sealed_key, _env(pod).get(INTERNAL_KEY_ENV, ""))
            there = [one for one in map(self.accepting, lease.addresses) if one is not None]
            if all(key == shadow_key(_env(one).get(INTERNAL_KEY_ENV, "")) for one in there):
                sender = pod["metadata"]["labels"][labels.REVISION]
                self.mirrors.leased(pod["metadata"]["name"], sender, lease)

    def pairs(
        self,
        pods: Iterable[tuple[str, str]],
        shadow: str,
        received: float,
        request: InternalRequest,
        headers: dict[str, str],
    ) -> tuple[PodPairs, ...]:
        """GET /v1/pairs of each (name, address). None is mute for minutes: that is an end of its own, and a fault must
        not lead to another end than there would be without it."""
        answers = []
        for name, address in pods:
            pod = self.at(address)
            if pod is None or not is_ready(pod) or not self.takes(pod, request, headers):
                answers.append(PodPairs(name, None, "no whole answer"))
            elif not self.truth.mirrors:
                answers.append(PodPairs(name, None, "404", unable=True))
            else:
                owner, now = pod["metadata"]["labels"][labels.REVISION], self._clock_of(pod)
                ahead = round((now - self.clock.now) / BUCKET_SECONDS)
                counted = self.mirrors.rows(shadow, owner, self.truth, self._quality)
                rows = tuple(row.model_copy(update={"bucket": row.bucket + ahead}) for row in counted)
                evidence = PairEvidence.model_construct(
                    pod=name,
                    revision=owner,
                    incarnation="",
                    now=now,
                    shadow=shadow,
                    judged=self.mirrors.judged(shadow, owner),
                    reference=self.mirrors.reference(shadow, name),
                    rows=rows,
                )
                answers.append(PodPairs.of(name, evidence, received))
        return tuple(answers)

    def _quality(self, revision: str) -> Quality:
        live = self.store.get("VectorIndexRevision", revision)
        return self.truth.served(live["spec"]["digest"]) if live is not None else Quality()

    # ------------------------------------------------------------ what they counted

    def _rows(self, owner: str, pod: Json, ahead: float) -> list[EvidenceBucket]:
        """All buckets of one pod so far that are not empty, from who had the queries when. Pods are alike."""
        rows, counted = self._buckets.setdefault((owner, ahead), ([], int((START + ahead) // BUCKET_SECONDS)))
        newest = int((self.clock.now + ahead) // BUCKET_SECONDS)
        for number in range(counted, newest):
            rows += self._counts(pod, number, self._seconds(owner, number, ahead))
        self._buckets[owner, ahead] = (rows, newest)
        return [*rows, *self._counts(pod, newest, self._seconds(owner, newest, ahead))]

    def _seconds(self, owner: str, number: int, ahead: float) -> float:
        start = number * BUCKET_SECONDS - ahead
        return self.share(owner, start, start + BUCKET_SECONDS)

    def _counts(self, pod: Json, number: int, seconds: float) -> list[EvidenceBucket]:
        task = task_of(pod)
        quality = self._with_fresh(pod, self.truth.served(task["digest"]))
        shards, owner = len(task.get("shards", ())), pod["metadata"]["labels"][labels.REVISION]
        if shards and len(self.shards_ready(owner)) < shards:
            quality = replace(quality, errors=1.0)  # each query lacks an answer
        before = _env(pod).get(COLUMNS_BEFORE_ENV)
        fates = self.truth.fates(task["digest"], None if before is None else json.loads(before))
        rows = []
        for segment, share in self.truth.segments:
            name = segment if segment in task.get("segments", ()) else "other"
            queries = int(seconds * self.truth.queries_per_second * share / 2)
            if queries:
                rows.append(_bucket(number, name, queries, quality, segment, fates))
        return rows

    def _with_fresh(self, pod: Json, quality: Quality) -> Quality:
        """How it answers with the fresh rows among its answers."""
        there = self.truth.fresh.values() if FRESH_ENV in _env(pod) else ()
        if not there or not self.answers_fresh(pod["metadata"]["labels"][labels.REVISION]):
            return quality
        return replace(quality, zero_results=max(quality.zero_results, *(one.zero_results for one in there)))


def _env(pod: Json) -> dict[str, str]:
    one = next(c for c in pod["spec"]["containers"] if c["name"] == "searcher")
    return {variable["name"]: variable.get("value", "") for variable in one["env"]}


def _bucket(number: int, name: str, asked: int, quality: Quality, segment: str, fates: Fates) -> EvidenceBucket:
    lost, refused, filtered = int(asked * fates.lost), int(asked * fates.refused), int(asked * fates.answered)
    queries = asked - lost - refused
    errors = int(queries * quality.errors)
    answered = queries - errors
    return EvidenceBucket.model_construct(
        bucket=number,
        segment=name,
        requests=queries,
        failed_requests=errors,
        queries=queries,
        errors=errors,
        refused=lost + refused,
        filtered_queries=filtered,
        filtered_zero_results=int(filtered * quality.filtered_zero),
        filters_compared=filtered + lost if fates.compared else 0,
        filters_lost=lost,
        zero_results=int(answered * dict(quality.zero_in).get(segment, quality.zero_results)),
        top_count=answered,
        top_sum=0.5 * answered,
        top_sum_squares=0.25 * answered,
        latency={140: queries},
    )


def _process(pod: Json) -> tuple[str, int]:
    states = pod["status"].get("containerStatuses") or [{}]
    return pod["metadata"]["uid"], int(states[0].get("restartCount", 0))
