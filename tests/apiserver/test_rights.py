"""What the operator asks of the API server, all of it, against what the chart lets it ask: neither may be more.

Nothing here is a list of what should be: the real process runs with a token of the ServiceAccount, then the real
loop carries out every kind of action that a plan can hold, and the audit log of the API server says what was asked.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar, get_args

import pytest
import urllib3
from apiserver.test_rbac import ensure_namespace, install
from chart import HOME, render
from control_plane import Api, ControlPlane, Json, path_of
from kubernetes import config
from observations import DATA, NOW, SETTINGS, a_revision, actions, job, run, seen, spec
from ports import held
from raw_objects import at_once
from rights import BY_ADMISSION, asked, granted, refused, remember

from vectorindex_operator.adapters import lease
from vectorindex_operator.adapters.events import KubeEvents
from vectorindex_operator.adapters.kube import KubeCluster, api_client
from vectorindex_operator.api.v1alpha1 import API_VERSION, NetworkPolicy, RevisionStatus, Route, Serving
from vectorindex_operator.core import identity
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.holds import FINALIZER
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.observation import JobState, Observation, Task
from vectorindex_operator.core.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteNetworkPolicy,
    DeleteRoute,
    DeleteSearchers,
    DeleteStepService,
    EnsureNetworkPolicy,
    EnsureRoute,
    EnsureSearchers,
    EnsureStepService,
    ForgetRevision,
    HoldRevision,
    LowerRoute,
    MoveTraffic,
    Plan,
    RenewLeases,
    RenewMirrors,
    StartBuild,
    StartCollect,
    StartOutcomes,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
    SwitchFreshOff,
    TellPoint,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import loop
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.watches import WATCHED
from vectorindex_searcher.contract import Identity, LeaseState, OutcomesTask, ServingPoint

ACCOUNT = "operator-vectorindex-operator"
USER = f"system:serviceaccount:{HOME}:{ACCOUNT}"
SPACE, NAME = "team-a", "docs"
SOON = 120.0
OPTIONAL = ("routes.enabled=true", "kueue.enabled=true")
"""Of the chart: the only rights that are off by default."""
LEASE: Json = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": lease.NAME, "namespace": HOME},
}

A = TypeVar("A")


def has_asked(plane: ControlPlane, *right: str) -> bool:
    return right in asked(plane.audited(USER))


def wait_for(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def manifest(name: str, namespace: str = "default", **changes: Any) -> Json:
    source = {"s3": {"bucket": "embeddings", "secretRef": {"name": "s3"}}}
    return {
        "apiVersion": API_VERSION,
        "kind": "VectorIndex",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": source, "artifacts": {"s3": {"bucket": "indexes"}}, **changes},
    }


@contextlib.contextmanager
def process(plane: ControlPlane, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The real operator, with nothing but its ServiceAccount's token."""
    environment = os.environ | {
        "KUBECONFIG": str(plane.kubeconfig(HOME, ACCOUNT)), "POD_NAMESPACE": HOME, "POD_NAME": "operator-1",
    }  # fmt: skip
    command = [sys.executable, "-m", "vectorindex_operator", "run", "--searcher-image=example/searcher:v1"]
    with (plane.folder / "operator.log").open("wb") as log:
        running = subprocess.Popen(
            [*command, f"--http-port={port}", "--relist-seconds=10"], env=environment, stdout=log, stderr=log
        )
        try:
            yield running
        finally:
            running.terminate()
            assert running.wait(20) == 0


def run_the_process(plane: ControlPlane, api: Api) -> None:
    """Until it leads, watches everything, has begun work and looked for what its watches missed."""
    pool = urllib3.PoolManager()

    def metric(line: str) -> bool:
        try:
            return line.encode() in pool.request("GET", f"http://127.0.0.1:{port}/metrics", retries=False).data
        except urllib3.exceptions.HTTPError:
            return False

    api.delete(LEASE)  # of an earlier test: making it is one of the rights
    with held() as (port,), process(plane, port):
        wait_for(lambda: metric(f"vectorindex_watches {float(len(WATCHED))}"), "not every kind is watched")
        assert api.apply(manifest("by-watch")).ok
        wait_for(lambda: has_asked(plane, "batch", "jobs", "create"), "the watch told nothing")
        wait_for(lambda: has_asked(plane, "coordination.k8s.io", "leases", "update"), "the Lease was not renewed")
        lists = [event for event in plane.audited(USER) if event["verb"] == "list"]
        wait_for(
            lambda: len([e for e in plane.audited(USER) if e["verb"] == "list"]) >= len(lists) + len(WATCHED),
            "there was no relist",
        )
        assert pool.request("GET", f"http://127.0.0.1:{port}/livez", retries=False).status == 200
    pool.clear()
    assert api.delete(manifest("by-watch")).ok


class Actor:
    """The real loop, told what to do: `decide` answers the plan that it is given."""

    def __init__(self, plane: ControlPlane, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = api
        config.load_kube_config(str(plane.kubeconfig(HOME, ACCOUNT)))
        from kubernetes import client

        self.cluster = KubeCluster(api_client(client.Configuration.get_default_copy()))
        searchers: Any = self
        self.reconciler = loop.Reconciler(self.cluster, searchers, KubeEvents(self.cluster, "operator-1"), SETTINGS)
        self.planned: Callable[[Observation], tuple[Action, ...]] = lambda obs: ()
        self.obs: Observation | None = None
        self.done: set[type] = set()
        monkeypatch.setattr(loop, "decide", self._decide)

    def evidence(self, *_: Any, **__: Any) -> Future[tuple[PodEvidence, ...]]:
        return at_once(())

    def tell(self, *_: Any, **__: Any) -> None: ...

    def order(self, *_: Any, **__: Any) -> None: ...

    def mirror(self, *_: Any, **__: Any) -> None: ...

    def _decide(self, obs: Observation, *_: Any) -> Plan:
        self.obs = obs
        actions = self.planned(obs)
        self.done |= {type(action) for action in actions}
        status = obs.index.status.model_copy(update={"reason": f"{time.monotonic()}"})
        return Plan(actions, (), status, 300.0, (Event(EventReason.PENDING, "told"),))

    def act(self, *actions: Action) -> Observation:
        """One pass that carries out `actions`; what is refused is in the audit log."""
        self.planned = lambda obs: actions
        with contextlib.suppress(ClusterError):
            self.reconciler.run(SPACE, NAME)
        assert self.obs is not None
        return self.obs


def act_out_every_action(actor: Actor) -> None:
    """From nothing to a revision that serves, and all the way back."""
    ensure_namespace(actor.api, SPACE)
    assert actor.api.apply(manifest(NAME, SPACE, **spec().wire())).ok
    actor.act()
    of = spec()
    revision = a_revision(of, "Stable").name
    for _ in range(2):  # what is there already is looked at: whose is it?
        actor.act(planned(seen(of, jobs=(), data=DATA[::-1]), StartResolve))
        actor.act(planned(seen(of), CreateRevision))
    actor.act(WriteRevisionStatus(revision, RevisionStatus(phase="Building")))
    actor.act(planned(seen(of, a_revision(of, "Pending")), StartBuild))
    queue(actor)
    shards(actor)
    actor.act(planned(seen(of, a_revision(of, "Validating")), StartValidation))
    actor.act(planned(seen(of, a_revision(of, "Removing", created=NOW - 60)), StartCollect))
    who = Identity(namespace=SPACE, name=NAME, uid="uid")
    reads = OutcomesTask(identity=who, artifacts=of.artifacts.place.location(), restore=True)
    actor.act(StartOutcomes(f"{NAME}-outcomes-1", "key", 0, reads))
    loaded = planned(seen(of, a_revision(of, "Stable"), traffic=a_revision(of, "Stable")), EnsureSearchers)
    actor.act(loaded)
    for kind, field in (("Deployment", {"replicas": 7}), ("PodDisruptionBudget", {"maxUnavailable": 2})):
        changed_by_hand(actor.api, kind, revision, field)
    actor.act(loaded)
    protect(actor)
    share(actor, revision)
    for finalizer in (FINALIZER, ""):
        actor.act(HoldRevision(revision, finalizer))
    switch = Decision(DecisionKind.SWITCH, "", revision, "Surge", "Ready", "ready on 2 pods", 1_800_000_000.0)
    actor.act(MoveTraffic(switch, ""))
    actor.act(MoveTraffic(replace(switch, serial=2), live(actor, "Service", NAME)["metadata"]["resourceVersion"]))
    actor.act(RenewLeases(revision, (), LeaseState.SERVING))
    actor.act(RenewMirrors(revision, (), revision, (), "shadow", 0.0))
    actor.act(TellPoint(revision, (), ServingPoint.DEFAULT, 0.0))
    actor.act(SwitchFreshOff(revision, ()))
    jobs = {job.name: job.uid for job in actor.act().jobs}
    actor.act(*(DeleteJob(name, uid) for name, uid in jobs.items()))
    changed_by_hand(actor.api, "Service", NAME, {"selector": {labels.REVISION: "another"}})
    actor.act(DeleteSearchers(revision))
    actor.act(ForgetRevision(revision, live(actor, "VectorIndexRevision", revision)["metadata"]["uid"]))


def shards(actor: Actor) -> None:
    """What an index in shards has besides: Jobs before and after its build, and a Service for each shard."""
    of = spec(index={"shards": 2})
    pending, stable = (a_revision(of, phase) for phase in ("Pending", "Stable"))
    laid = job(Task.BUILD, JobState.SUCCEEDED, key=f"{identity.build_hash(of)}/0", of=pending)
    made = CreateRevision(pending.name, pending.spec.digest, DATA, Serving.of(of))
    assert actor.api.apply(manifest(NAME, SPACE, **of.wire())).ok
    actor.act(made)
    actor.act(planned(seen(of, pending), StartPartition))
    actor.act(planned(seen(of, pending, jobs=(laid,)), StartPublish))
    loaded = planned(seen(of, stable, traffic=stable), EnsureSearchers)
    for _ in range(2):  # a Service is made once its Deployment is there
        actor.act(loaded)
    changed_by_hand(actor.api, "Service", labels.shard_name(stable.name, 1), {"ports": [{"port": 81}]})
    actor.act(loaded)
    actor.act(DeleteSearchers(stable.name))
    actor.act(ForgetRevision(stable.name, live(actor, "VectorIndexRevision", stable.name)["metadata"]["uid"]))
    assert actor.api.apply(manifest(NAME, SPACE, **spec().wire())).ok


def queue(actor: Actor) -> None:
    """A Job that waits for its turn, about which Kueue is asked."""
    of = spec(build={"queueName": "ml"})
    assert actor.api.apply(manifest(NAME, SPACE, **of.wire())).ok
    actor.act(planned(seen(of, a_revision(of, "Pending")), StartBuild))
    assert any(job.held and job.queue == "ml" for job in actor.act().jobs)
    assert actor.api.apply(manifest(NAME, SPACE, **spec().wire())).ok


def protect(actor: Actor) -> None:
    """A managed NetworkPolicy, made, changed by hand, put right and removed."""
    managed = EnsureNetworkPolicy(NetworkPolicy.model_validate({"mode": "Managed", "from": [{"podSelector": {}}]}))
    name = f"{NAME}-pods"
    actor.act(managed)
    changed_by_hand(actor.api, "NetworkPolicy", name, {"ingress": []})
    actor.act(managed)
    for _ in range(2):  # pods of shards have one of their own, which the first one is beside from then on
        actor.act(replace(managed, shards=True))
    made = actor.act().network_policies
    assert made.keys() == {name, f"{NAME}-shards"}
    for each, uid in made.items():
        actor.act(DeleteNetworkPolicy(each, uid))


def share(actor: Actor, revision: str) -> None:
    """A route, a share for a candidate and its way back, and all of it removed."""
    route = Route.model_validate({"parentRefs": [{"name": "public"}]})
    assert actor.api.apply(manifest(NAME, SPACE, **spec(rollout={"route": route.wire()}).wire())).ok
    actor.act(EnsureStepService(revision), EnsureRoute(route, "", 0, None, ""))
    version = live(actor, "HTTPRoute", NAME)["metadata"]["resourceVersion"]
    actor.act(EnsureRoute(route, revision, 10, None, version))
    actor.act(LowerRoute(route, "", 0, None, "", (revision,)))
    actor.act(EnsureRoute(route, "", 0, None, live(actor, "HTTPRoute", NAME)["metadata"]["resourceVersion"]))
    actor.act(DeleteStepService(revision, live(actor, "Service", revision)["metadata"]["uid"]))
    actor.act(DeleteRoute(NAME, live(actor, "HTTPRoute", NAME)["metadata"]["uid"]))


def planned(obs: Observation, kind: type[A]) -> A:
    """The action of this kind that a pass over `obs` plans: the index of observations.py is the one of this test."""
    (action,) = actions(run(obs), kind)
    return action


def live(actor: Actor, kind: str, name: str) -> Json:
    raw: Any = actor.cluster.get(kind, SPACE, name) if kind in ("Service", "HTTPRoute") else None
    if raw is None:
        version = {"VectorIndexRevision": API_VERSION, "Service": "v1"}[kind]
        raw = actor.api.get(
            path_of({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": SPACE}})
        ).body
    return dict(raw)


def changed_by_hand(api: Api, kind: str, name: str, spec: Json) -> None:
    version = {
        "Deployment": "apps/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "PodDisruptionBudget": "policy/v1",
        "Service": "v1",
    }[kind]
    path = path_of({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": SPACE}})
    answer = api.request("PATCH", path, {"spec": spec}, "application/merge-patch+json")
    assert answer.ok, answer.message


@pytest.fixture(scope="module")
def everything(control_plane: ControlPlane, api: Api) -> list[Json]:
    """All that was ever asked: by the process, and by every action. The e2e layer counts it as asked, too."""
    install(api, *OPTIONAL)
    run_the_process(control_plane, api)
    with pytest.MonkeyPatch.context() as patch:
        actor = Actor(control_plane, api, patch)
        act_out_every_action(actor)
        assert actor.done == set(get_args(Action)), "an action that no plan of this test holds"
    events = control_plane.audited(USER)
    remember(asked(events))
    return events


def test_nothing_that_the_operator_asks_is_refused(everything: list[Json]) -> None:
    assert refused(everything) == {}


def test_the_operator_asks_for_everything_that_it_may(everything: list[Json]) -> None:
    may = granted(render(*OPTIONAL))
    assert may - asked(everything) == BY_ADMISSION
    assert asked(everything) <= may


def test_the_rights_of_by_admission_are_needed(control_plane: ControlPlane, api: Api) -> None:
    """Without them, where the plugin is enabled, nothing that has an owner could be made."""
    ensure_namespace(api, "no-owners")
    account: Json = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "bare", "namespace": "no-owners"},
    }
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r", "namespace": "no-owners"},
            "rules": [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]}  # fmt: skip
    bound = {"apiVersion": role["apiVersion"], "kind": "RoleBinding", "metadata": role["metadata"],
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
             "subjects": [{"kind": "ServiceAccount", "name": "bare", "namespace": "no-owners"}]}  # fmt: skip
    owner = manifest("owner") | {"metadata": {"name": "owner", "namespace": "no-owners"}}
    for one in (account, role, bound, owner):
        answer = api.apply(one)
        assert answer.ok, answer.message
    owned = {"apiVersion": API_VERSION, "kind": "VectorIndex", "name": "owner", "uid": answer.body["metadata"]["uid"],
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template},
           "metadata": {"name": "j", "namespace": "no-owners", "ownerReferences": [owned]}}  # fmt: skip
    bare = api.service_account("no-owners", "bare")
    refused = bare.request("POST", path_of(job).rpartition("/")[0], job)
    assert (refused.status, "blockOwnerDeletion" in refused.message) == (403, True), refused.message
