"""One pass over one VectorIndex: observe, decide, act, report. Everything else in the operator exists to call this.

1 observe   read the cluster, Job results, evidence     -> Observation (who has to ask pods ends here, and begins anew
                                                           when they have answered)
2 decide    core.lifecycle.decide(observation, now)     -> Plan (pure)
3 act       execute the plan's actions in order         -> what was refused, what was put back
4 report    one status write if anything changed, then Events
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from vectorindex_operator.api.v1alpha1 import BlockedBy, VectorIndexStatus
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.fresh_looks import FreshAnswer
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Action, MoveTraffic, Plan, StartResolve, WriteRevisionStatus
from vectorindex_operator.core.source_poll import Said
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.cache import CachedCluster, NotCachedError, ReadCache
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS, class_of
from vectorindex_operator.reconcile.errors import ClusterError, RefusedError, ReportedError
from vectorindex_operator.reconcile.execute import MOST_ROWS, Executor
from vectorindex_operator.reconcile.fresh_polls import FreshPolls
from vectorindex_operator.reconcile.leftovers import Leftovers
from vectorindex_operator.reconcile.looks import AskedError, Looks, NoFigures
from vectorindex_operator.reconcile.notices import Notices
from vectorindex_operator.reconcile.objects import Repair
from vectorindex_operator.reconcile.observe import observe
from vectorindex_operator.reconcile.polls import SourcePolls
from vectorindex_operator.reconcile.ports import Cluster, Courier, Events, Figures, Searchers
from vectorindex_operator.reconcile.queue import Outcome
from vectorindex_operator.reconcile.repeats import Repeats
from vectorindex_searcher.contract import Found

log = logging.getLogger(__name__)

TELL_AGAIN_SECONDS = 3600.0
"""Somebody who changes an object again and again is told of once in this time."""
MOST_TOLD = 10_000
MOST_WAITING = 50
"""Passes that keep what they saw while their pods are asked, a quarter of a megabyte each. The others read it again:
after a restart all indexes ask at once."""
LOOK_AGAIN_SECONDS = 1.0
"""After a pass that wrote something."""
CLEAR_UP_AGAIN_SECONDS = 5.0
"""After a look at what was left that could not be finished."""
ASKED = Outcome(again_after=10.0, finished=False)
"""Of a pass that asked pods: their answers mark the key long before."""
WAITS_FOR_PODS = frozenset({"RollbackTargetNotReady", "RestoreTargetNotReady"})
CHANGES = (MoveTraffic, WriteRevisionStatus)
RECORDS: Mapping[str, tuple[type[Action], ...]] = {"retry": (WriteRevisionStatus, StartResolve)}
"""What a command's answer rests on: without it, what was asked for is forgotten once it is answered."""


@dataclass(slots=True)
class Reconciler:
    """Runs passes. Holds nothing between them that matters: that is on Kubernetes objects."""

    cluster: Cluster
    searchers: Searchers
    events: Events
    settings: Installation
    cache: ReadCache | None = None
    """What the watches told; `cluster` must feed it (cache.LiveCluster). None: every pass is made on live reads."""
    operator_class: str = DEFAULT_CLASS
    """Which VectorIndexes are ours (claims.py)."""
    on_status: Callable[[str, str, VectorIndexStatus], None] = lambda namespace, name, status: None
    on_loaded: Callable[[str, str, Mapping[str, int]], None] = lambda namespace, name, loaded: None
    """Bytes of memory by loaded revision."""
    on_gone: Callable[[str, str], None] = lambda namespace, name: None
    on_answer: Callable[[str, str], None] = lambda namespace, name: None
    """Pods have answered what a pass had asked: it wants to go on."""
    on_poll: Callable[[Said], None] = lambda said: None
    """What a searcher said of its source."""
    on_artifact: Callable[[Found], None] = lambda found: None
    """What it said of the artifact that a rollback needs."""
    on_fresh: Callable[[FreshAnswer], None] = lambda answer: None
    """What it said of the fresh rows."""
    figures: Figures = field(default_factory=NoFigures)
    """Who answers the queries of rules on PromQL."""
    courier: Courier | None = None
    """Who is told what was decided."""
    on_notice: Callable[[bool], None] = lambda taken: None
    """A notice was sent; whether it was taken."""
    clock: Callable[[], float] = time.time
    polls: SourcePolls = field(init=False)
    fresh_polls: FreshPolls = field(init=False)
    notices: Notices = field(init=False)
    looks: Looks = field(init=False)
    repeats: Repeats = field(default_factory=Repeats)
    """What was written again and again. May be lost."""
    _told: dict[tuple[str, str, Repair], float] = field(default_factory=dict)
    """When a repair was last told of. May be lost."""
    _waiting: dict[tuple[str, str], tuple[int, Observation]] = field(default_factory=dict)
    """What passes saw that wait for their pods, and the cache's turn then. May be lost."""

    def __post_init__(self) -> None:
        self.looks = Looks(self.searchers, self.on_answer, self.figures)
        self.notices = Notices(self.courier, self.on_answer, self.on_notice, self.clock)
        self.polls = SourcePolls(self.searchers, self.on_answer, self.on_poll, self.clock, self.on_artifact)
        self.fresh_polls = FreshPolls(self.searchers, self.on_answer, self.on_fresh, self.clock)

    def run(self, namespace: str, name: str) -> Outcome:
        """One pass; it never wants to run again when the VectorIndex is gone.

        Raises errors.ClusterError; the queue decides when to try again.
        """
        key = namespace, name
        if self.looks.under_way(key):
            return ASKED
        try:
            after = self._run(namespace, name)
        except AskedError:
            return ASKED
        except Exception:
            self.looks.spent(key)
            raise
        self.looks.spent(key)
        return Outcome(after)

    def _run(self, namespace: str, name: str) -> float | None:
        """The pass, and then, whatever came of it, a look at what an earlier VectorIndex of this name left: a way back
        must not wait for that."""
        try:
            after = self._reconcile(namespace, name)
        finally:
            left = self._clear_up(namespace, name)
        return min((one for one in (left, after) if one is not None), default=None)

    def _clear_up(self, namespace: str, name: str) -> float | None:
        """Seconds until what was left is to be looked at again; None: nothing is left."""
        if self.cache is not None and not self.cache.leaving.has(namespace, name):
            return None
        leftovers = Leftovers(self.repeats.over(self.cluster, self.clock), self.events, self.settings)
        try:
            return leftovers.look(namespace, name, self.clock())
        except ClusterError as error:
            log.info("what was left is looked at again: %s", error, extra={"key": f"{namespace}/{name}"})
            return CLEAR_UP_AGAIN_SECONDS

    def _reconcile(self, namespace: str, name: str) -> float | None:
        """The pass on what the cache says, or the one on live reads that it may lead to."""
        if self.cache is not None:
            raw = self.cache.get("VectorIndex", namespace, name)
            if raw is not None and class_of(raw) != self.operator_class:
                return self._leave(namespace, name)
            try:
                return self._pass(CachedCluster(self.cache, self.cluster), namespace, name, live=False)
            except (NotCachedError, ClusterError) as reason:
                # Something is to be written, or cannot be told from the cache: decided anew on live reads.
                log.debug("looking again, live: %s", reason, extra={"key": f"{namespace}/{name}"})
        return self._pass(self.cluster, namespace, name, live=True)

    def _pass(self, cluster: Cluster, namespace: str, name: str, *, live: bool) -> float | None:
        """One pass. One that is not `live` ends with NotCachedError before it would write anything."""
        key, cluster = (namespace, name), self.repeats.over(cluster, self.clock)
        turn = 0 if live or self.cache is None else self.cache.changed(namespace, name)
        obs = self._seen_before(key, turn) or observe(cluster, namespace, name, self.clock())
        if obs is None:
            if not live:
                raise NotCachedError("the VectorIndex is not there")
            return self._leave(namespace, name)
        if class_of(obs.objects["VectorIndex", name]) != self.operator_class:
            return self._leave(namespace, name)
        try:
            told = self.looks.told(key, obs, self.clock())
        except AskedError:
            if turn and len(self._waiting) < MOST_WAITING:
                self._waiting[key] = turn, obs
            raise
        heard, fresh = self.polls.heard(key), self.fresh_polls.heard(key)
        obs = replace(told, heard=heard, heard_fresh=fresh, taken=self.notices.taken(key))
        plan = self._claimed(obs, decide(obs, self.settings, self.clock()))
        if not live and (plan.events or plan.errors):
            raise NotCachedError("there is something to tell")
        if not live and any(row.rule in WAITS_FOR_PODS for row in plan.status.blocked_by):
            raise NotCachedError("a way back waits for a pod, and an event that is lost must not hold it up")
        for error in plan.errors:
            log.error("a bug: a step of this pass failed", exc_info=error, extra={"key": f"{namespace}/{name}"})
        executor = Executor(cluster, self.searchers, self.settings, obs)
        refused = self._say_first_word(executor, plan)
        plan = self._act(executor, plan)
        refused = self._report(executor, plan) or refused
        if plan.ask is not None:
            self.polls.ask(key, addressee(obs, plan.ask.revision), plan.ask)
        if plan.ask_fresh is not None:
            self.fresh_polls.ask(key, addressee(obs, plan.ask_fresh.revision), plan.ask_fresh)
        self.on_status(namespace, name, plan.status)
        self.on_loaded(namespace, name, plan.loaded_bytes)
        plan = self._offer(key, plan)
        if refused is not None:
            raise refused
        if executor.refusals:
            row = executor.refusals[0]
            raise ReportedError(f"{row.rule} {row.subject}: {row.message}", plan.requeue_after)
        # Our own writes come back from the watches as nothing new, so what follows from them is looked at from here.
        changed = executor.said is not None or plan.forward or any(type(one) in CHANGES for one in plan.safe)
        return min(plan.requeue_after, LOOK_AGAIN_SECONDS) if changed else plan.requeue_after

    def _offer(self, key: tuple[str, str], plan: Plan) -> Plan:
        """Tell what the status says now and nobody was told yet. The plan looks again when it is time to try again."""
        again = self.notices.offer(key, plan.notices, plan.status.notified or ()) if plan.notices else None
        return plan if again is None else replace(plan, requeue_after=min(plan.requeue_after, again))

    def _seen_before(self, key: tuple[str, str], turn: int) -> Observation | None:
        """What this pass saw when it asked its pods, if the cache has not been told anything since. To read it again
        would be half of what a look costs. `turn`: the cache's now; 0: live, and read in any case."""
        before, obs = self._waiting.pop(key, (0, None))
        return obs if turn and turn == before else None

    def _leave(self, namespace: str, name: str) -> float | None:
        """There is nothing to do here any more: it is gone, or another operator's."""
        self._waiting.pop((namespace, name), None)
        self.polls.forget((namespace, name))
        self.fresh_polls.forget((namespace, name))
        self.notices.forget((namespace, name))
        self.on_gone(namespace, name)
        return None

    def _claimed(self, obs: Observation, plan: Plan) -> Plan:
        """The plan, whose status says whose the VectorIndex is."""
        if obs.index.deleting or plan.status.operator == self.operator_class:
            return plan
        return replace(plan, status=plan.status.model_copy(update={"operator": self.operator_class}))

    def _act(self, executor: Executor, plan: Plan) -> Plan:
        """Run the plan; where the traffic cannot be moved, the one that is made knowing that it stays where it is."""
        words = executor.move_traffic(plan)
        if words:
            executor.obs = replace(executor.obs, traffic=replace(executor.obs.traffic, refused=words))
            plan = self._claimed(executor.obs, decide(executor.obs, self.settings, self.clock()))
        executor.run(plan)
        return _as_recorded(executor, plan)

    def _say_first_word(self, executor: Executor, plan: Plan) -> RefusedError | None:
        """kstatus takes an object without conditions for finished, so the first word comes before any work."""
        index = executor.obs.index
        if index.status.conditions or index.deleting:
            return None
        return self._write(executor, plan.status.model_copy(update={"verbs": index.status.verbs}))

    def _report(self, executor: Executor, plan: Plan) -> RefusedError | None:
        """Write the status with what was refused, when it says something new; then send the Events."""
        obs = executor.obs
        before = executor.said or obs.index.status
        rows = _with_known_words(executor.refusals[:MOST_ROWS], obs.index.status.blocked_by)
        status = plan.status.model_copy(update={"blocked_by": (*plan.status.blocked_by, *rows)})
        refused = self._write(executor, status) if status != before else None
        if refused is not None:
            return refused  # the next pass says all of it
        known = {(row.rule, row.subject) for row in obs.index.status.blocked_by}
        new = [row for row in rows if (row.rule, row.subject) not in known]
        told = (Event(EventReason.WRITE_REFUSED, f"{row.subject}: {row.message}") for row in new)
        live = obs.objects["VectorIndex", obs.index.name]
        for event in (*plan.events, *told, *self._tell_repairs(executor)):
            self.events.send(live, event)
        return None

    def _write(self, executor: Executor, status: VectorIndexStatus) -> RefusedError | None:
        """A status that the API server refuses must not keep the actions from being run: it is raised at the end."""
        index = executor.obs.index
        try:
            executor.write_status("VectorIndex", index.name, status)
        except RefusedError as error:
            log.error("the status was refused: %s", error, extra={"key": f"{index.namespace}/{index.name}"})
            return error
        executor.said = status
        return None

    def _tell_repairs(self, executor: Executor) -> list[Event]:
        index, now, events = executor.obs.index, self.clock(), []
        for repair in executor.repairs:
            key = index.namespace, index.name, repair
            if now - self._told.get(key, 0.0) < TELL_AGAIN_SECONDS:
                continue
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told[key] = now
            message = f"{repair.subject}: {repair.field} was changed by somebody else, and is put back"
            events.append(Event(EventReason.DRIFT_REPAIRED, message))
        return events


def _as_recorded(executor: Executor, plan: Plan) -> Plan:
    """The plan without the answers and Events of what could not be recorded: the next pass decides, and says, it again.

    Except for a trip: where the traffic has moved, nothing tells of it a second time.
    """
    unrecorded, open_ = executor.unrecorded, _unfounded(executor, plan)
    before = tuple(one for one in executor.obs.index.status.verbs if one.verb in open_)
    verbs = (*before, *(one for one in plan.status.verbs if one.verb not in open_))
    events = tuple(
        event
        for event in plan.events
        if event.command not in open_
        and (event.revision not in unrecorded or event.reason is EventReason.GUARDRAIL_TRIPPED)
    )
    status = plan.status.model_copy(update={"verbs": tuple(sorted(verbs, key=lambda one: one.verb))})
    return replace(plan, status=status, events=events)


def _unfounded(executor: Executor, plan: Plan) -> frozenset[str]:
    """Commands that this pass answers, although what the answer rests on was refused."""
    obs = executor.obs
    decisions = [obs.traffic.decision, *(one.decision for one in plan.safe if isinstance(one, MoveTraffic))]
    moved = {decision.nonce for decision in decisions if decision is not None}  # the front Service keeps these
    new = [one for one in plan.status.verbs if one not in obs.index.status.verbs]
    open_ = [one for one in new if one.verb != "rollback" or one.nonce not in moved]
    lost = {one.verb: RECORDS.get(one.verb, (WriteRevisionStatus,)) for one in open_}
    return frozenset(verb for verb, kinds in lost.items() if any(isinstance(one, kinds) for one in executor.undone))


def _with_known_words(rows: list[BlockedBy], before: tuple[BlockedBy, ...]) -> list[BlockedBy]:
    """Each refusal in the words it was first told in, while it is the same kind: a quota's numbers change all the time,
    and every change would be a write."""
    known = {(row.rule, row.subject, _kind(row)): row for row in before}
    return [known.get((row.rule, row.subject, _kind(row)), row) for row in dict.fromkeys(rows)]


def _kind(row: BlockedBy) -> str:
    return row.message.partition(":")[0]
