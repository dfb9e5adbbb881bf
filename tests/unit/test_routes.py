"""The HTTPRoute: how it is written, what is read of it whatever stands there, what it costs an index without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from canaries import FRONT, NAME, NEW, OLD, STABLE, at_step
from chart import of_kind
from chart import render as chart
from observations import NOW, SETTINGS, index, seen
from raw_objects import (
    NAMESPACE,
    Silent,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    stored,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Route, VectorIndexStatus
from vectorindex_operator.core.plan import EnsureRoute, EnsureStepService, LowerRoute, Plan
from vectorindex_operator.core.traffic import Decision, DecisionKind, RouteView
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile.cache import CachedCluster, NotCachedError, ReadCache
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError
from vectorindex_operator.reconcile.execute import Executor
from vectorindex_operator.reconcile.objects import Objects, Repair
from vectorindex_operator.reconcile.observe import observe
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_operator.reconcile.routes import route_view

BACK = Decision(DecisionKind.ROLL_BACK, NAME, STABLE.name, "errors", "ErrorRate", "too many", NOW, serial=3)
UID = "uid-docs"
GENERATION = 7


def manifest(weight: int = 10, *, kind: type[EnsureRoute] = EnsureRoute, version: str = "") -> dict[str, Any]:
    route = NEW.rollout.route
    assert route is not None
    action = kind(route, NAME if weight else "", weight, BACK, version)
    (one,) = render(action, seen(NEW), None, SETTINGS)
    return one


def live(weight: int = 10, *, parents: list[Raw] | None = None, **spec: Any) -> dict[str, Any]:
    """The route as it is stored, and what gateways say of it."""
    raw = dict(stored(manifest(weight), "uid-route", NOW - 60, parents=parents if parents is not None else [row()]))
    raw["metadata"] = {**raw["metadata"], "generation": GENERATION}
    return raw | {"spec": {**raw["spec"], **spec}}


def row(*, seen_at: int = GENERATION, accepted: str = "True", resolved: str = "True", **ref: str) -> dict[str, Any]:
    about = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "gateways", **ref}
    said = (("Accepted", accepted), ("ResolvedRefs", resolved))
    conditions = [
        {"type": kind, "status": value, "reason": "R", "message": "m", "observedGeneration": seen_at}
        for kind, value in said
    ]
    return {"parentRef": about, "controllerName": "example.com/gateway", "conditions": conditions}


def view(raw: Raw | None, problem: str = "", services: list[Raw] | None = None) -> RouteView:
    return route_view(raw, problem, services or [], [], UID)


# ---------------------------------------------------------------- how it is written


@pytest.mark.parametrize("kind", [EnsureRoute, LowerRoute])
def test_the_front_service_is_always_the_first_backend(kind: type[EnsureRoute]) -> None:
    shared, alone = manifest(10, kind=kind)["spec"], manifest(0, kind=kind)["spec"]
    backends = [(one["name"], one["port"], one["weight"]) for one in shared["rules"][0]["backendRefs"]]
    assert backends == [(FRONT, 80, 90), (NAME, 80, 10)]
    assert [(one["name"], one["weight"]) for one in alone["rules"][0]["backendRefs"]] == [(FRONT, 100)]
    assert shared["parentRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "gateways"}
    ]


def test_what_stays_empty_is_left_out_of_a_parent() -> None:
    route = Route.model_validate({"parentRefs": [{"name": "public", "sectionName": "https"}], "hostnames": ["a.b"]})
    (one,) = render(EnsureRoute(route, "", 0, None, ""), seen(NEW), None, SETTINGS)
    assert "namespace" not in one["spec"]["parentRefs"][0]
    assert (one["spec"]["hostnames"], one["metadata"].get("annotations")) == (["a.b"], None)


def test_it_belongs_to_the_index_and_carries_the_reason() -> None:
    (owner,) = manifest()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"]) == ("VectorIndex", True)
    assert view(live()).decision == BACK


def test_the_service_of_a_candidate_selects_it_alone() -> None:
    (service,) = render(EnsureStepService(NAME), seen(NEW), None, SETTINGS)
    assert service["metadata"]["name"] == NAME
    assert service["spec"]["selector"] == labels.selector(NAME)
    assert service["metadata"]["ownerReferences"] == [labels.owner(index(NEW))]


# ---------------------------------------------------------------- what is read


def test_what_every_gateway_has_taken() -> None:
    found = view(live())
    assert (found.weights, found.accepted, found.behind) == ({FRONT: 90, NAME: 10}, True, False)
    assert (found.left_behind, found.unheard, found.written_at) == (False, "", NOW - 60)


@pytest.mark.parametrize(
    ("parents", "accepted", "behind"),
    [
        ([], False, False),
        ([row(seen_at=GENERATION - 1)], False, True),
        ([row(resolved="False")], False, False),
        ([row(accepted="False")], False, False),
        ([row(name="another")], False, False),
        ([row(namespace="elsewhere")], False, False),
        ([row(), row(name="another", seen_at=3)], True, False),
        ([row(accepted="False"), row()], True, False),
    ],
)
def test_what_gateways_have_not(parents: list[Raw], accepted: bool, behind: bool) -> None:
    found = view(live(parents=parents))
    assert (found.accepted, found.behind) == (accepted, behind)
    said = ["" if accepted else str(parents)] * 2
    assert bool(found.refused) == ("'Accepted', 'status': 'False'" in said[0])
    assert bool(found.unresolved) == ("'ResolvedRefs', 'status': 'False'" in said[1])


def test_each_of_several_gateways_must_take_it() -> None:
    refs = [{"name": "public", "namespace": "gateways"}, {"name": "internal"}]
    assert not view(live(parentRefs=refs)).accepted
    both = [row(), row(name="internal", namespace=NAMESPACE)]
    assert view(live(parentRefs=refs, parents=both)).accepted


def test_a_gateway_that_is_not_named_any_more_is_told_from_those_that_are() -> None:
    before = row(name="another", seen_at=GENERATION - 1)
    found = view(live(parents=[row(), before]))
    assert (found.accepted, found.behind, found.left_behind, found.unheard) == (True, False, True, "")
    found = view(live(parents=[before]))
    assert (found.accepted, found.behind, found.left_behind, found.unheard) == (False, False, True, "gateways/public")
    assert not view(live(parents=[row(), row(name="another")])).left_behind


def test_who_had_a_gateway_before_is_told_from_who_has_it() -> None:
    """It has another class now: what the controller of before said stays there."""
    before = {**row(seen_at=GENERATION - 1), "controllerName": "example.com/earlier"}
    found = view(live(parents=[before, row()]))
    assert (found.accepted, found.behind, found.left_behind) == (True, False, True)
    found = view(live(parents=[before, row(seen_at=GENERATION - 1)]))
    assert (found.accepted, found.behind, found.left_behind) == (False, True, False)


def test_the_first_gateway_that_says_nothing_is_named() -> None:
    refs = [{"name": "public", "namespace": "gateways"}, {"name": "internal"}]
    assert view(live(parentRefs=refs)).unheard == f"{NAMESPACE}/internal"


def test_when_it_was_written_is_what_the_api_server_notes_and_no_write_of_a_status() -> None:
    raw = live()
    fields = [
        {"manager": "us", "operation": "Apply", "time": to_text(NOW - 20)},
        {"manager": "gateway", "operation": "Update", "subresource": "status", "time": to_text(NOW - 1)},
        {"manager": "someone", "time": "nonsense"},
    ]
    found = view({**raw, "metadata": {**raw["metadata"], "managedFields": fields}})
    assert (found.written_at, found.said_at) == (NOW - 20, NOW - 1)


@pytest.mark.parametrize("parents", ["nonsense", [None, 3], [{"conditions": "x"}], [{"parentRef": []}]])
def test_nonsense_in_a_status_is_nothing_that_was_said(parents: Any) -> None:
    assert not view(live(parents=parents)).accepted


@pytest.mark.parametrize("rules", ["nonsense", [None], [{"backendRefs": [{"name": FRONT}, {"weight": "x"}, 7]}]])
def test_nonsense_in_a_spec_gives_nobody_a_share(rules: Any) -> None:
    assert view(live(rules=rules)).weights.get(NAME, 0) == 0


def test_a_route_of_somebody_else_is_left_alone() -> None:
    raw = live()
    raw["metadata"] = {**raw["metadata"], "ownerReferences": []}
    found = view(raw)
    assert (found.exists, found.owned, found.weights) == (True, False, {})


def test_services_of_candidates_are_told_from_the_front_service() -> None:
    (own,) = render(EnsureStepService(NAME), seen(NEW), None, SETTINGS)
    assert view(None, services=[stored(own, "u1", NOW), front_raw(STABLE)]).services == {NAME: "u1"}


# ---------------------------------------------------------------- what others change


def test_a_route_that_says_the_same_is_not_written() -> None:
    cluster = Stored()
    Objects(cluster).ensure(manifest(), None)
    made = cluster.get("HTTPRoute", NAMESPACE, FRONT)
    assert Objects(cluster).ensure(manifest(), made) is None
    assert len(cluster.writes) == 1


@pytest.mark.parametrize(
    "edit",
    [
        {"backendRefs": [{"name": FRONT, "port": 80, "weight": 1}]},
        {"filters": [{"type": "RequestMirror"}]},
        {"backendRefs": [{"filters": [{"type": "RequestRedirect"}]}]},
        {"matches": [{"path": {"type": "Exact", "value": "/x"}}]},
    ],
)
def test_what_somebody_changes_is_put_back_and_told(edit: dict[str, Any]) -> None:
    cluster = Stored()
    Objects(cluster).ensure(manifest(0), None)
    made = cluster.get("HTTPRoute", NAMESPACE, FRONT)
    assert made is not None
    (rule,) = made["spec"]["rules"]
    if "filters" in str(edit.get("backendRefs")):
        edit = {"backendRefs": [rule["backendRefs"][0] | edit["backendRefs"][0]]}
    changed = {**made, "spec": {**made["spec"], "rules": [{**rule, **edit}]}}
    cluster.objects = [changed]
    assert isinstance(Objects(cluster).ensure(manifest(0), changed), Repair)


def test_a_larger_share_is_refused_on_a_route_that_has_changed() -> None:
    sent = []

    class Asked(Stored):
        def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
            sent.append(manifest["metadata"].get("resourceVersion"))
            return super().apply(manifest, force=force)

    cluster = Asked(live(0))
    Objects(cluster).ensure(manifest(10), live(0), "41")
    Objects(cluster).ensure(manifest(0), live(10))
    assert sent == ["41", None]


# ---------------------------------------------------------------- how it is made


def executor(cluster: Any, route: Raw | None) -> Executor:
    """Of a pass that has seen this route, or none."""
    obs = seen(NEW)
    return Executor(cluster, Silent(), SETTINGS, replace(obs, objects={("HTTPRoute", FRONT): route} if route else {}))


def plan(action: EnsureRoute) -> Plan:
    return Plan((action,), (), VectorIndexStatus(), 0.0)


@pytest.mark.parametrize("kind", [EnsureRoute, LowerRoute])
def test_one_that_another_operator_has_made_meanwhile_is_left_and_looked_at(kind: type[EnsureRoute]) -> None:
    """It may name a candidate: who forgets that, while a gateway sends queries to it, has them fail."""
    route = NEW.rollout.route
    assert route is not None
    cluster = Stored(live(10))
    for candidate, weight in ((NAME, 0), ("", 0)):
        with pytest.raises(ConflictError, match="made meanwhile"):
            executor(cluster, None).run(plan(kind(route, candidate, weight, None, "")))
    assert cluster.writes == []


def test_one_that_somebody_else_has_made_meanwhile_stays_theirs() -> None:
    route = NEW.rollout.route
    assert route is not None
    theirs = live(0)
    theirs["metadata"] = {**theirs["metadata"], "ownerReferences": []}
    mine, cluster = EnsureRoute(route, "", 0, None, ""), Stored(theirs)
    refused = executor(cluster, None)
    refused.run(plan(mine))
    assert [(one.rule, one.subject) for one in refused.refusals] == [("NameConflict", f"HTTPRoute/{FRONT}")]
    assert cluster.writes == []


def test_what_was_made_is_changed_on_the_version_that_was_read() -> None:
    """It was created, and what is created has to be taken over before it can be applied: which is a version more."""
    route = NEW.rollout.route
    assert route is not None
    cluster = Stored()
    executor(cluster, None).run(plan(EnsureRoute(route, "", 0, None, "")))
    made = cluster.get("HTTPRoute", NAMESPACE, FRONT)
    assert made is not None
    made["metadata"]["managedFields"] = [{"manager": "vectorindex-operator", "operation": "Update"}]
    read = made["metadata"]["resourceVersion"]
    sent = []

    class Asked(Stored):
        def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
            sent.append(manifest["metadata"].get("resourceVersion"))
            return super().apply(manifest, force=force)

    again = Asked(made)
    executor(again, made).run(plan(EnsureRoute(route, NAME, 10, None, read)))
    assert sent == [str(int(read) + 1)]
    assert [verb for verb, _ in again.writes] == ["take over", "apply"]


# ---------------------------------------------------------------- what it costs


class Counted(Stored):
    asked: list[str]

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        self.asked = [*getattr(self, "asked", []), kind]
        if kind == "HTTPRoute" and self.refuse:
            raise next(iter(self.refuse.values()))
        return super().get(kind, namespace, name)


def objects(of: Any, *views: Any) -> list[Raw]:
    loaded = [raw for one in views for raw in (deployment_raw(one), searcher_pod(one))]
    return [index_raw(index(of)), *(revision_raw(one) for one in views), *loaded, front_raw(STABLE)]


def test_an_index_without_a_route_asks_for_none() -> None:
    cluster = Counted(*objects(OLD, STABLE))
    observe(cluster, NAMESPACE, FRONT, NOW)
    assert "HTTPRoute" not in cluster.asked


@pytest.mark.parametrize("of", [NEW, OLD])
def test_one_with_a_route_or_with_a_step_that_goes_on_does(of: Any) -> None:
    cluster = Counted(*objects(of, STABLE, at_step()), live())
    obs = observe(cluster, NAMESPACE, FRONT, NOW)
    assert obs is not None
    assert obs.route.weights == {FRONT: 90, NAME: 10}


@pytest.mark.parametrize("words", ["404 : 404 page not found", "403 Forbidden: no"])
def test_an_api_that_is_not_there_ends_no_look(words: str) -> None:
    cluster = Counted(*objects(NEW, STABLE), refuse={("get", "HTTPRoute"): RefusedError(words)})
    obs = observe(cluster, NAMESPACE, FRONT, NOW)
    assert obs is not None
    assert (obs.route.problem, obs.traffic.revision) == (words, STABLE.name)


def test_any_other_fault_does() -> None:
    cluster = Counted(*objects(NEW, STABLE), refuse={("get", "HTTPRoute"): ConflictError("x")})
    with pytest.raises(ConflictError):
        observe(cluster, NAMESPACE, FRONT, NOW)


def test_nobody_watches_routes_so_they_are_read_live() -> None:
    cache = ReadCache()
    assert CachedCluster(cache, Stored(live())).get("HTTPRoute", NAMESPACE, FRONT) is not None
    with pytest.raises(NotCachedError):
        CachedCluster(cache).get("HTTPRoute", NAMESPACE, FRONT)


# ---------------------------------------------------------------- the chart


def test_the_chart_gives_rights_to_routes_only_where_they_are_asked_for() -> None:
    def rights(*settings: str) -> set[tuple[str, str]]:
        roles = of_kind(chart(*settings), "ClusterRole")
        rules = [rule for role in roles if role["metadata"]["name"] == "operator-vectorindex-operator"
                 for rule in role["rules"]]  # fmt: skip
        return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}

    more = rights("routes.enabled=true") - rights()
    assert more == {("services", "delete"), *(("httproutes", verb) for verb in ("get", "create", "patch", "delete"))}
