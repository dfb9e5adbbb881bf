"""What must never be seen, checked after every write, and at the end."""

from __future__ import annotations

from collections.abc import Callable

from simulator.operators import Operator
from simulator.pods import finished
from simulator.store import Json, owners
from simulator.world import NAME, World

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.core.phase import UNDER_WAY, Phase
from vectorindex_operator.core.safety.abort import ABORTED
from vectorindex_operator.core.safety.record_decision import RESTORED, REVERTED
from vectorindex_operator.core.traffic import DecisionKind
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision
from vectorindex_operator.reconcile.routes import weights

SHADOW_SECONDS = 600.0
"""Twice the `maxDuration` of the scenarios, and as long as passes fail one after another."""
CLOCKS_SECONDS = 10.0
"""By which the clocks of two operators differ at most."""
WAITS_SECONDS = 50.0
"""A rollback waits so long at least for the place of a prior that is kept."""
HELD_SECONDS = 2000.0
"""Fifteen minutes until a Job is given up that cannot be made, or as long for one that was made last of all."""
TOGETHER_SECONDS = 300.0
"""As long as events may be lost, reads be slow and passes fail one after another."""


class Invariants:
    """Watches all writes. `broken(text)` is called for each invariant that is violated."""

    def __init__(self, world: World, broken: Callable[[str], None]) -> None:
        self.world, self.broken = world, broken
        self.calm: Callable[[], float] = lambda: float("inf")
        """Since when nothing goes wrong any more."""
        self.frozen: Callable[[str], bool] = lambda kind: kind in world.truth.refused
        """Whether objects of a kind cannot be written now."""
        self.removed: set[str] = set()
        """Revisions whose searchers an operator removed, and that are not loaded again."""
        self.deleted_at = float("inf")
        """When a person deleted the VectorIndex."""
        self.rejected_at: dict[str, float] = {}
        self.built_at: dict[str, float] = {}
        """When a revision's build result was recorded."""
        self.begun: dict[str, float] = {}
        """When the Job of a build was made."""
        self.together_since = float("inf")
        """Since when two builds have been running."""
        self.given_up: dict[str, object] = {}
        """Revisions that a rollback left, and what the user had asked for by then."""
        self.named: set[str] = set()
        """Revisions that a person asked to go back to."""
        self.short_since = float("inf")
        """Since when a prior that is kept loaded has had fewer replicas than stable."""
        self.tripped: dict[str, int] = {}
        """Passes that a recorded trip has waited for although its target was ready."""

    def on_change(
        self, operator: Operator | None, verb: str, kind: str, name: str, old: Json | None, new: Json | None
    ) -> None:
        if kind == "VectorIndex" and "deletionTimestamp" in (new or {"metadata": {}})["metadata"]:
            self.deleted_at = min(self.deleted_at, self.world.now)
        collects = kind == "Job" and new is not None and not owners(new)
        if operator is not None and verb == "create" and self.deleted_at < operator.started_at and not collects:
            self.broken(f"(6) {kind}/{name} is made although the VectorIndex is being deleted")
        if operator is not None and new is not None:
            if kind == "Service" and name == NAME:
                self._traffic(operator, old, new)
            elif kind == "HTTPRoute":
                self._route(operator, old, new)
            elif kind == "Job" and verb == "create":
                self._job(operator, name, new)
            elif kind == "Deployment" and verb == "create":
                revision = new["metadata"]["labels"][labels.REVISION]
                self.removed.discard(revision)
                self._may_work(operator, revision, f"Deployment/{name} created")
                self._place(revision)
            elif kind == "VectorIndex" and verb == "status":
                self._status(operator, new)
        elif operator is not None and kind == "Service" and name in self.world.gateway.sends_to():
            self.broken(f"(19) Service/{name} is removed, and a gateway sends queries to it")
        elif operator is not None and kind == "Deployment" and old is not None:
            revision = old["metadata"]["labels"][labels.REVISION]
            self._retired(operator, revision)
            self.removed.add(revision)
        elif operator is not None and kind == "VectorIndexRevision":
            self._forgotten(name, old)
        if kind == "VectorIndexRevision":
            self._learn(name, new)

    def _learn(self, name: str, new: Json | None) -> None:
        """What the revisions' statuses say, after the write was judged."""
        status = (new or {}).get("status", {})
        trip = (status.get("rollout") or {}).get("trip") or {}
        self.named.add(trip.get("target", ""))
        if status.get("rejected"):
            self.rejected_at.setdefault(name, self.world.now)
        else:
            self.rejected_at.pop(name, None)
        if status.get("build"):
            self.built_at.setdefault(name, self.world.now)
        elif new is None:
            self.built_at.pop(name, None)

    def _traffic(self, operator: Operator, old: Json | None, new: Json) -> None:
        """(1) only to a proven revision, never from ready endpoints to none; (4) never to a rejected one."""
        target = new["spec"]["selector"][labels.REVISION]
        source = ((old or {}).get("spec", {}).get("selector") or {}).get(labels.REVISION, "")
        if not self.world.entitled(target):
            self.broken(f"(1) traffic to {target}, which was not measured to be good enough")
        if target != source and self._rejected_before(operator, target):
            self.broken(f"(4) traffic to {target}, which is rejected")
        decision = read_decision(new["metadata"]["annotations"][labels.DECISION])
        if decision is not None and decision.reason == ABORTED and decision.kind is DecisionKind.ROLL_BACK:
            self._was_on_its_way(operator, decision.from_revision)
        switched = decision is not None and decision.kind is DecisionKind.SWITCH and decision.rule != RESTORED
        if switched and target != source:  # else it is the operating point that was decided
            self._may_begin(operator, f"traffic to {target}", target)
        if decision is not None and decision.kind is DecisionKind.ROLL_BACK and decision.rule != REVERTED:
            self.given_up[decision.from_revision] = self._asked()
        elif self.given_up.get(target) == self._asked():
            self.broken(f"(7) traffic to {target} again after its rollback, and nobody asked for it")
        if self.world.last_ready.get(target, 0.0) < operator.started_at and self.world.last_ready.get(source) == float(
            "inf"
        ):
            self.broken(f"(1) traffic from {source} with ready endpoints to {target} with none")

    def _route(self, operator: Operator, old: Json | None, new: Json) -> None:
        """(19) the front Service first, always; no larger share to what is rejected, or was not measured."""
        backends = new["spec"]["rules"][0]["backendRefs"]
        if backends[0]["name"] != NAME or not backends[0]["weight"]:
            self.broken(f"(19) the route's first backend is {backends[0]}")
        before = weights(old) if old is not None else {}
        for one, share in weights(new).items():
            if one == NAME or share <= before.get(one, 0):
                continue
            if not self.world.entitled(one) or self._rejected_before(operator, one):
                self.broken(f"(19) a larger share to {one}, which is rejected, or was not measured")
            if self.world.phase_of(one) not in (Phase.SHIFTING, ""):
                self.broken(f"(19) a larger share to {one}, which is {self.world.phase_of(one)}")

    def _was_on_its_way(self, operator: Operator, name: str) -> None:
        """(17) What is stable is not aborted."""
        views = [self.world.store.as_of("VectorIndexRevision", operator.started_at), None]
        if all(self._phases(view).get(name) == Phase.STABLE for view in views):
            self.broken(f"(17) {name} is aborted, and it is stable")

    def _may_begin(self, operator: Operator, what: str, target: str = "") -> None:
        """(16) Nothing new begins while the index is suspended, and where a revision is pinned nothing but that."""

        def forbids(one: Json | None) -> bool:
            pinned = one["spec"].get("pinRevision") if one is not None else ""
            return pinned != target if pinned else one is not None and bool(one["spec"].get("suspend"))

        if all(
            map(forbids, (self.world.store.as_of("VectorIndex", operator.started_at).get(NAME), self.world.index()))
        ):
            self.broken(f"(16) {what} although the index is suspended, or another revision is pinned")

    def _retired(self, operator: Operator, name: str) -> None:
        """(1) what has the traffic stays loaded; what it would go back to stays loaded during a soak."""
        traffic = self.world.serving()
        if name in self.world.gateway.sends_to():
            self.broken(f"(19) the searchers of {name} are removed, and a gateway sends them queries")
        if name == traffic:
            self.broken(f"(1) the searchers of {name} are removed, and it has the traffic")
        views = [self.world.store.as_of("VectorIndexRevision", operator.started_at), None]
        phases = [self._phases(view) for view in views]
        live = self.world.store.get("VectorIndexRevision", name) or {}
        dead = bool(live.get("status", {}).get("unloadedAt"))  # it had no ready pod for its progressDeadline
        if not dead and all(p.get(traffic) == "Soaking" and p.get(name) == "Stable" for p in phases):
            self.broken(f"(1) the searchers of {name} are removed, and {traffic} still soaks")
        kept, until = self._kept()
        if kept == name and self.world.now < until - CLOCKS_SECONDS:
            self.broken(f"(18) the searchers of {name} are removed, and its status says that they are kept")

    def _forgotten(self, name: str, old: Json | None) -> None:
        """(11) what is under way or stable is not forgotten."""
        phase = (old or {}).get("status", {}).get("phase", "")
        if phase in UNDER_WAY | {Phase.STABLE}:
            self.broken(f"(11) {name} is deleted, and it is {phase}")

    def _phases(self, view: dict[str, Json] | None) -> dict[str, str]:
        objects = self.world.store.kinds.get("VectorIndexRevision", {}) if view is None else view
        return {name: str(obj.get("status", {}).get("phase", "")) for name, obj in objects.items()}

    def _asked(self) -> object:
        """All that the user has said so far."""
        meta = (self.world.index() or {"metadata": {}})["metadata"]
        return meta.get("generation"), meta.get("annotations"), self.world.truth.data.name

    def _job(self, operator: Operator, name: str, new: Json) -> None:
        """(2) one build at a time, none for what is built. (16) none while everything below the prefix is removed. What
        was decided is written, and read, whatever else may begin."""
        marks = new["metadata"]["labels"]
        verb, revision = marks[labels.VERB], marks.get(labels.REVISION, "")
        if verb not in ("collect", "outcomes"):
            self._may_begin(operator, f"Job/{name} created")
        jobs = [job for job in self.world.store.of_kind("Job") if not owners(job) and not finished(job)]
        removing = [job for job in jobs if job["metadata"]["labels"].get(labels.VERB) == "collect"]
        for job in removing if owners(new) else ():
            if to_unix(job["metadata"]["creationTimestamp"]) + 1 < operator.started_at:
                self.broken(f"(16) Job/{name} created, and {job['metadata']['name']} may remove what it writes")
        if verb in ("resolve", "collect", "outcomes"):
            return
        self._may_work(operator, revision, f"Job/{name} created")
        if verb != "build":
            return
        # Not of one that began after the pass had looked: a write that stands still for as long as a Lease lasts, and
        # is carried out then, cannot know of it. The product allows that to an operator that was frozen in the middle
        # of a request, and stops one of the two builds at the next look (docs/adr/0031-two-operators-meet.md).
        known = [one for one in self._building() if one != name and self.begun[one] < operator.started_at]
        self.begun[name] = self.world.now
        if known:
            self.broken(f"(2) builds running at the same time: {', '.join(sorted([name, *known]))}")
        if self.built_at.get(revision, float("inf")) < operator.started_at:
            self.broken(f"(2) {revision} is built and recorded, and is built again by {name}")

    def _building(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.world.jobs("build") if not finished(job)]

    def _may_work(self, operator: Operator, revision: str, what: str) -> None:
        if self._rejected_before(operator, revision):
            self.broken(f"(4) {what} although {revision} is rejected")

    def _rejected_before(self, operator: Operator, revision: str) -> bool:
        return self.rejected_at.get(revision, float("inf")) < operator.started_at

    def _status(self, operator: Operator, new: Json) -> None:
        """(8) Ready=True only while the Service has ready endpoints."""
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in new["status"]["conditions"])
        seen = operator.started_at
        if ready and all(self.world.last_ready.get(r, 0.0) < seen for r in self.world.served_since(seen)):
            self.broken(f"(8) Ready=True, and {self.world.serving() or 'the Service'} has no ready endpoint")

    def on_pass(self, operator: Operator) -> None:
        """(14) Nothing is loaded whose artifact was removed. (10) two revisions are loaded at most, but for one that a
        person named while another soaks. (7) A recorded trip moves the traffic within three passes, whatever else is
        refused. (2) Of two builds one is soon stopped."""
        self.together_since = min(self.together_since, self.world.now) if len(self._building()) > 1 else float("inf")
        if self.world.now - self.together_since > TOGETHER_SECONDS:
            self.broken(f"(2) builds go on at the same time: {', '.join(sorted(self._building()))}")
        self._leftovers()
        removed = [n for n in self._owned() if self.world.made_of.get(n, ("", ""))[0] in self.world.truth.collected]
        if removed:
            self.broken(f"(14) {', '.join(removed)} is loaded, and its artifact was removed")
        self._priors()
        loaded = self.world.loaded() - self.named
        if len(loaded) > 2:
            self.broken(f"(10) {len(loaded)} revisions are loaded: {', '.join(sorted(loaded))}")
        self._shadows()
        traffic = self.world.serving()
        live = self.world.store.get("VectorIndexRevision", traffic)
        rollout = ((live or {}).get("status", {}).get("rollout") or {}) if live else {}
        prior = (rollout.get("trip") or {}).get("target") or rollout.get("prior", "")
        status = (self.world.store.get("VectorIndexRevision", prior) or {}).get("status", {})
        if not rollout.get("trip") or not status.get("promotedAt") or status.get("rejected"):
            self.tripped.clear()
        elif self.world.last_ready.get(prior) == float("inf") and not self.frozen("Service"):
            self.tripped[traffic] = self.tripped.get(traffic, 0) + 1
            if self.tripped[traffic] > 3:
                self.broken(f"(7) {traffic} is tripped, {prior} is ready, and the traffic has not moved in 3 passes")

    def _serving_rollout(self) -> Json:
        """Of the status of the revision with the traffic."""
        live = self.world.store.get("VectorIndexRevision", self.world.serving()) or {}
        rollout: Json = live.get("status", {}).get("rollout") or {}
        return rollout

    def _kept(self) -> tuple[str, float]:
        """What is kept loaded beside the revision with the traffic, as statuses say, and until when."""
        rollout = self._serving_rollout()
        until = rollout.get("priorKeptUntil")
        return (rollout["prior"], to_unix(until)) if until else ("", 0.0)

    def _place(self, made: str) -> None:
        """(10) whose searchers are made waits until those of a prior that was kept are gone: what surges, and for a
        while what a person goes back to."""
        rollout, serving, loaded = self._serving_rollout(), self.world.serving(), self.world.loaded()
        keeps = rollout.get("settings", {}).get("keepPrior", "0s") != "0s" and self.world.phase_of(serving) == "Stable"
        trip = rollout.get("trip")
        late = trip is not None and self.world.now - to_unix(trip["at"]) > WAITS_SECONDS
        if keeps and rollout.get("prior") in loaded - {made} and len(loaded) > 2 and not late:
            self.broken(f"(10) searchers of {made} are made beside {', '.join(sorted(loaded - {made}))}")

    def _priors(self) -> None:
        """(18) what is kept has as many replicas as stable."""
        serving = self.world.serving()
        kept, _ = self._kept()
        deployments = [self.world.store.get("Deployment", name) or {"spec": {}} for name in (kept, serving)]
        mine, stables = (one["spec"].get("replicas", 0) for one in deployments)
        self.short_since = min(self.short_since, self.world.now) if kept and mine < stables else float("inf")
        if self.world.now - self.short_since > TOGETHER_SECONDS and not self.frozen("Deployment"):
            self.broken(f"(18) {kept} is kept with {mine} replicas, and stable has {stables}")

    def _owned(self) -> set[str]:
        """What is loaded of a VectorIndex that is there: what comes late of one that is gone goes by itself."""
        loaded = [one for one in self.world.store.of_kind("Deployment") if owners(one) & self.world.store.uids.keys()]
        return {one["metadata"]["labels"][labels.REVISION] for one in loaded}

    def _leftovers(self) -> None:
        """(16) What an index left is removed for no other one; no finalizer keeps a revision for long."""
        if self.world.truth.harmed:
            self.broken(f"(16) artifacts of another VectorIndex are removed: {', '.join(self.world.truth.harmed)}")
        for one in self.world.store.of_kind("VectorIndexRevision"):
            meta = one["metadata"]
            since = (
                max(to_unix(meta["deletionTimestamp"]), self.calm()) if "deletionTimestamp" in meta else self.world.now
            )
            if self.world.now - since > HELD_SECONDS:
                self.broken(f"(16) {meta['name']} is kept by {meta['finalizers']} for {self.world.now - since:.0f} s")

    def _shadows(self) -> None:
        """(15) a shadow ends; what it rejected was never given the traffic since it began."""
        for one in self.world.store.of_kind("VectorIndexRevision"):
            name, status = one["metadata"]["name"], one.get("status", {})
            shadow = (status.get("rollout") or {}).get("shadow")
            if not shadow:
                continue
            began = to_unix(shadow["startedAt"])
            since = max(began, self.calm(), self.world.nobody_until)
            if status["phase"] == Phase.SHADOWING and self.world.now - since > SHADOW_SECONDS:
                self.broken(f"(15) {name} is in shadow for {self.world.now - began:.0f} s")
            rejected = (status.get("rejected") or {}).get("stage") == "Shadow"
            if rejected and name in self.world.served_since(began):
                self.broken(f"(15) {name} had the traffic, and was rejected in shadow")

    def at_the_end(self, *, polls: bool) -> None:
        if sending := self.world.searchers.mirrors.sending():
            self.broken(f"(15) queries are sent for {', '.join(sending)} at rest")
        live = self.world.index()
        if live is None:
            left = [f"{kind}/{name}" for kind, name, _ in self.world.store.everything()]
            if left:
                self.broken(f"(6) the VectorIndex is gone, and there are still {', '.join(sorted(left))}")
            return
        if live.get("status", {}).get("observedGeneration") != live["metadata"]["generation"]:
            self.broken("(8) observedGeneration is not current")
        running = [j["metadata"]["name"] for j in self.world.store.of_kind("Job") if not finished(j)]
        if running and not polls:
            self.broken(f"(3) Jobs still running at rest: {', '.join(running)}")
        orphans = [r for r in self.world.loaded() if r not in self._wanted_loaded()]
        if orphans:
            self.broken(f"(3) searchers of {', '.join(orphans)} are loaded at rest, and nobody needs them")
        phases = [self.world.phase_of(r["metadata"]["name"]) for r in self.world.store.of_kind("VectorIndexRevision")]
        if phases.count("Stable") > 1:
            self.broken(f"(5) {phases.count('Stable')} revisions are Stable")

    def _wanted_loaded(self) -> set[str]:
        status = self.world.status()
        return {status.get("stable"), status.get("candidate"), self.world.serving(), self._kept()[0]}


__all__ = ["NAME", "Invariants"]
