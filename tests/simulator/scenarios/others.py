"""What others do to the operator's objects: they have a name that it needs, apply fields and take them away again, or
undo what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.admission import Stubborn
from simulator.scenarios.rollouts import second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.store import Json
from simulator.truth import Quality
from simulator.world import NAME, World

from vectorindex_operator.manifests import labels

GITOPS = "gitops"
JOB: Json = {"suspend": True, "template": {"metadata": {"labels": {}}}}
DEPLOYMENT: Json = {"replicas": 0, "template": {"metadata": {"labels": {}}}}
SERVICE: Json = {"selector": {"app": "x"}, "ports": []}


# ---------------------------------------------------------------- a name that is taken


def _taken(w: World, kind: str, name: str, spec: Any) -> None:
    w.store.create({"kind": kind, "metadata": {"name": name, "labels": {}}, "spec": spec})


def _said(w: World, kind: str, name: str) -> Callable[[], bool]:
    """The status tells of the object of somebody else."""
    row = ("NameConflict", f"{kind}/{name}")
    return lambda: row in {(one["rule"], one["subject"]) for one in w.status().get("blockedBy", ())}


def _left_alone(w: World, kind: str, name: str, spec: Json) -> Script:
    """For a while; then its owner removes it."""
    yield w.rng.uniform(10.0, 100.0)
    live = w.store.kinds[kind][name]["spec"]
    assert spec.items() <= live.items(), f"{kind}/{name} of somebody else was changed to {live}"
    w.delete(kind, name)


@scenario(ends("A", builds=1))
def name_taken(w: World) -> Script:
    """A Service of somebody else has our name: it is left alone until it is gone."""
    _taken(w, "Service", NAME, SERVICE)
    w.apply()
    yield lambda: w.status().get("reason") == "NameConflict"
    yield from _left_alone(w, "Service", NAME, {"selector": {"app": "x"}})
    yield stable(w, "A")


@scenario(ends("B", builds=2), unanswered=True)
def service_replaced(w: World) -> Script:
    """While B serves somebody removes the front Service, and makes one of his own under its name."""
    yield from second(w)
    w.delete("Service", NAME)
    _taken(w, "Service", NAME, SERVICE)
    yield lambda: w.status().get("reason") == "NameConflict"
    yield from _left_alone(w, "Service", NAME, {"selector": {"app": "x"}})
    yield lambda: w.serving() == w.name_of("B")
    yield stable(w, "B")


@scenario(ends("A", builds=1))
def deployment_name_taken(w: World) -> Script:
    """A Deployment of somebody else has the name that we need: it is not adopted."""
    _taken(w, "Deployment", w.name_of("A"), DEPLOYMENT)
    w.apply()
    yield _said(w, "Deployment", w.name_of("A"))
    yield from _left_alone(w, "Deployment", w.name_of("A"), DEPLOYMENT)
    yield stable(w, "A")


@scenario(ends("A", builds=1), unanswered=True)
def deployment_replaced(w: World) -> Script:
    """While A serves. Nothing else can serve, so its users wait until the owner of that one removes it."""
    yield from first_is_stable(w)
    w.delete("Deployment", w.name_of("A"))
    _taken(w, "Deployment", w.name_of("A"), DEPLOYMENT)
    yield _said(w, "Deployment", w.name_of("A"))
    yield from _left_alone(w, "Deployment", w.name_of("A"), DEPLOYMENT)
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def budget_name_taken(w: World) -> Script:
    """A PodDisruptionBudget of somebody else: it is left alone, said, and holds up nothing."""
    theirs = {"minAvailable": 1}
    _taken(w, "PodDisruptionBudget", w.name_of("A"), theirs)
    w.apply()
    yield lambda: w.serving() == w.name_of("A")
    yield _said(w, "PodDisruptionBudget", w.name_of("A"))
    yield from _left_alone(w, "PodDisruptionBudget", w.name_of("A"), theirs)
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def policy_name_taken(w: World) -> Script:
    theirs: Json = {"podSelector": {}}
    _taken(w, "NetworkPolicy", f"{NAME}-pods", theirs)
    w.apply()
    yield lambda: w.serving() == w.name_of("A")
    yield _said(w, "NetworkPolicy", f"{NAME}-pods")
    yield from _left_alone(w, "NetworkPolicy", f"{NAME}-pods", theirs)
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def revision_name_taken(w: World) -> Script:
    """The object of a revision that another index owns, by the name that ours needs."""
    theirs = {"digest": "theirs", "image": ""}
    _taken(w, "VectorIndexRevision", w.name_of("A"), theirs)
    w.apply()
    yield _said(w, "VectorIndexRevision", w.name_of("A"))
    yield from _left_alone(w, "VectorIndexRevision", w.name_of("A"), theirs)
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def job_names_taken(w: World) -> Script:
    """Of each kind somebody removes the Job as soon as it is there, and makes one of his own under its name."""
    w.apply()
    for verb in ("resolve", "validate"):
        yield lambda verb=verb: bool(w.jobs(verb))  # type: ignore[misc]
        name = w.jobs(verb)[0]["metadata"]["name"]
        w.delete("Job", name)
        _taken(w, "Job", name, JOB)
        yield _said(w, "Job", name)
        yield from _left_alone(w, "Job", name, {"suspend": True})
    yield stable(w, "A")


@scenario(ends("B", builds=2))
def copies_with_our_labels(w: World) -> Script:
    """Somebody copies the operator's objects, labels and all, under other names: that is nobody's affair."""
    yield from first_is_stable(w)
    copies = {}
    for kind, spec in (("Deployment", {"replicas": 0}), ("VectorIndexRevision", {}), ("Job", {"suspend": True})):
        original = w.store.of_kind(kind)[0]
        meta = {"name": f"{NAME}-copy", "labels": original["metadata"]["labels"]}
        w.store.create({"kind": kind, "metadata": meta, "spec": {**original["spec"], **spec}})
        copies[kind] = w.store.kinds[kind][f"{NAME}-copy"]["metadata"]["uid"]
    w.apply(index__factory="B")
    yield stable(w, "B")
    yield 100.0
    for kind, uid in copies.items():
        live = w.store.get(kind, f"{NAME}-copy")
        assert live is not None, f"the copy of a {kind} is gone"
        assert live["metadata"]["uid"] == uid, f"the copy of a {kind} was made anew"
        w.delete(kind, f"{NAME}-copy")


# ---------------------------------------------------------------- fields that come and go


def _as_rendered(w: World) -> list[str]:
    """What was taken away is there again."""
    name = w.serving()
    deployment, front = w.store.kinds["Deployment"][name], w.store.kinds["Service"][NAME]
    facts = {
        "replicas": (deployment["spec"]["replicas"], w.replicas()),
        "index of the Deployment": (deployment["metadata"]["labels"].get(labels.INDEX), NAME),
        "strategy": (deployment["spec"]["strategy"], {"type": "RollingUpdate", "rollingUpdate": ROLLING}),
        "manager of the Service": (front["metadata"]["labels"].get(labels.MANAGED_BY), labels.OPERATOR),
        "selector": (front["spec"]["selector"], labels.selector(name)),
    }
    return [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]


ROLLING = {"maxUnavailable": 0, "maxSurge": 1}


def _undone(w: World) -> set[str]:
    """Kinds of objects of which the status says that somebody undoes their writes."""
    rows = w.status().get("blockedBy", ())
    return {row["subject"].partition("/")[0] for row in rows if row["rule"] == "WriteUndone"}


def _come_and_go(w: World, kind: str, name: str, **fields: Any) -> None:
    """Another manager forces its own values, and applies again without them: with that they are gone."""
    w.apply_as(GITOPS, kind, name, **fields)
    w.apply_as(GITOPS, kind, name)


@scenario(ends("A", builds=1, extra=_as_rendered))
def fields_taken_away(w: World) -> Script:
    """Also the labels that watches look for."""
    yield from first_is_stable(w)
    name = w.name_of("A")
    _come_and_go(
        w,
        "Deployment",
        name,
        metadata={"labels": {labels.INDEX: "x"}},
        spec={"replicas": 5, "strategy": {"rollingUpdate": {"maxUnavailable": 2}}},
    )
    yield w.rng.uniform(0.0, 60.0)
    _come_and_go(w, "Service", NAME, metadata={"labels": {labels.MANAGED_BY: "x"}})
    yield lambda: not _as_rendered(w)


@scenario(ends("B", builds=2))
def sidecar_added(w: World) -> Script:
    """A container and a variable of another manager's stay where they were put: no apply of ours takes them away."""
    yield from first_is_stable(w)
    name = w.name_of("A")
    variable = {"name": "searcher", "env": [{"name": "THEIRS", "value": "1"}]}
    theirs = {"containers": [{"name": "proxy", "image": "proxy:1", "env": []}, variable]}
    w.apply_as(GITOPS, "Deployment", name, spec={"template": {"spec": theirs}})
    yield 100.0
    assert not _undone(w), f"written again and again: {_undone(w)}"
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=_as_rendered))
def selector_taken_away_in_soak(w: World) -> Script:
    """What is left of it picks the pods of every revision; and nobody can tell any more why B has the traffic."""
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    _come_and_go(
        w,
        "Service",
        NAME,
        metadata={"annotations": {labels.DECISION: "x"}},
        spec={"selector": {labels.REVISION: "x"}},
    )
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def old_service_applied_again(w: World) -> Script:
    """In the soak somebody applies the Service as it was before, its decision included, from a backup."""
    yield from first_is_stable(w)
    old = w.store.kinds["Service"][NAME]
    w.apply(index__factory="B")
    yield lambda: w.serving() == w.name_of("B")
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 10.0)
    w.store.change("Service", NAME, spec=old["spec"], meta={"annotations": old["metadata"]["annotations"]})
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def gate_taken_away(w: World) -> Script:
    """B misses a floor of the user's own; without it the default holds, which B reaches."""
    w.apply(gate={"recall": {"min": 0.96}})
    yield stable(w, "A")
    set_quality(w, "B", Quality(recall=0.956))
    w.apply(index__factory="B")
    yield phase(w, "B", "Rejected")
    w.take_away("gate")
    yield stable(w, "B")


def _no_policy(w: World) -> list[str]:
    return [f"there is still {one['metadata']['name']}" for one in w.store.of_kind("NetworkPolicy")]


@scenario(ends("A", builds=1, extra=_no_policy))
def policy_taken_away(w: World) -> Script:
    yield from first_is_stable(w)
    yield lambda: bool(_no_policy(w))
    w.take_away("searcher", "networkPolicy")
    yield lambda: not _no_policy(w)


@scenario(ends("B", builds=2))
def replicas_left_to_an_autoscaler(w: World) -> Script:
    """The user applies without replicas from then on: they stay as the autoscaler left them, also of B."""
    yield from first_is_stable(w)
    w.scale(4)
    yield lambda: len(w.controllers.ready_pods(w.name_of("A"))) == 4
    w.take_away("searcher", "replicas")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.scale(3)
    yield stable(w, "B")


# ---------------------------------------------------------------- writes that are undone


NO_FAULTS_LEFT = 1300.0
"""Seconds after which no operator dies any more, which would forget how often it has written."""
FIGHT_SECONDS, MOST_IN_A_FIGHT = 1200.0, 40
"""Writes of all operators in that time, of all objects that are undone each time. At each look it would be hundreds."""


@scenario(ends("B", builds=2), fights=True)
def webhook_fights(w: World) -> Script:
    """A webhook has another mind about what the operator writes, each time: all goes on, and less is written."""
    w.store.webhooks = (*w.store.webhooks, Stubborn())
    yield from second(w)
    w.truth.queries_per_second = 0.0
    yield NO_FAULTS_LEFT
    before = w.sent
    yield FIGHT_SECONDS
    assert w.sent - before <= MOST_IN_A_FIGHT, f"{w.sent - before} writes, and none of them counts"
    assert {"Deployment", "PodDisruptionBudget"} <= _undone(w), f"said of {_undone(w)} only"


@scenario(ends("A", builds=1, extra=_as_rendered))
def another_controller_fights(w: World) -> Script:
    """Whenever the operator has put its replicas back another controller changes them; at last that one gives in."""
    yield from first_is_stable(w)
    w.truth.queries_per_second = 0.0
    yield NO_FAULTS_LEFT
    name, until, times = w.name_of("A"), w.now + FIGHT_SECONDS, 0
    while w.now < until:
        w.apply_as(GITOPS, "Deployment", name, spec={"replicas": 3})
        yield lambda: w.store.kinds["Deployment"][name]["spec"]["replicas"] == 2
        times += 1
    assert times <= MOST_IN_A_FIGHT, f"put back {times} times"
    _come_and_go(w, "Deployment", name, spec={"replicas": 3})
    yield lambda: w.store.kinds["Deployment"][name]["spec"]["replicas"] == 2
