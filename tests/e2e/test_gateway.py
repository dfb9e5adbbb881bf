"""Canary weights over a real gateway: whom Envoy sends whose queries, and what becomes of its users meanwhile.

Each index has a host name of its own on the one Gateway. A pod's share is counted in answers that users got.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from e2e.operator_release import Operator
from e2e.vectors import CLUSTERS, Corpus, bodies
from e2e.workspace import NAME, OK, Workspace, no_failures
from layers import unavailable

from harness.base import Cluster
from harness.kube import Json, Kube
from harness.traffic import Settings, Traffic
from harness.vix import DECISION
from harness.waiting import wait_for

pytestmark = pytest.mark.gateway

CONTROLLER = "projectcontour"
PUBLIC = {"name": "public", "namespace": "gateways"}
ABSENT = {"name": "absent", "namespace": "gateways"}
RATE = 200.0
DRAINED_SECONDS = 150
"""A searcher that lost the traffic is removed after 45 s, and ends its connections."""
FORGOTTEN_SECONDS = 240
"""Then the route names it no more, and 40 s later its Service goes."""


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, kube: Kube, operator: Operator) -> Iterator[str]:
    """Its address. The operator may write HTTPRoutes for as long as these tests run."""
    envoy = kube.get("Service", "envoy", CONTROLLER)
    if envoy is None or not cluster.direct:
        unavailable("gateway", "there is no gateway", "make gateway-up")
    operator.upgrade("routes.enabled=true")
    yield str(envoy["spec"]["clusterIP"])
    operator.upgrade("routes.enabled=false")


# ---------------------------------------------------------------- what the tests do


def host(space: Workspace) -> str:
    return f"{space.namespace}.example.com"


def canary(space: Workspace, *steps: Json, parent: dict[str, str] = PUBLIC) -> Json:
    """Of a spec: these steps, through this Gateway."""
    route = {"parentRefs": [parent], "hostnames": [host(space)]}
    return {"rollout": {"strategy": "Canary", "steps": [*steps], "route": route}}


def attach(space: Workspace, address: str, *steps: Json) -> None:
    """Gives what serves its route, and waits until users come through."""
    space.apply("good", **canary(space, *steps))
    wait_open(space, address)


def wait_open(space: Workspace, address: str) -> None:
    """Until the gateway answers in its name."""
    query = bodies(Corpus.make().queries(1))[0].encode()
    headers = {"Host": host(space), "Content-Type": "application/json"}

    def answers() -> bool:
        try:
            asked = urllib.request.Request(f"http://{address}/v1/search", query, headers)
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return bool(answer.status == OK)
        except OSError:
            return False

    space.index.wait(answers, 60, f"an answer to {host(space)} through the gateway")


@contextmanager
def through(space: Workspace, address: str, queries: Sequence[str], rate: float = RATE) -> Iterator[Traffic]:
    """Queries that do not stop, by way of the gateway."""
    settings = Settings(host=address, port=80, name=host(space), rate=rate)
    with Traffic(settings, queries) as traffic:
        traffic.wait(lambda seen: seen.queries + seen.failed >= rate, 30, "the first second of traffic")
        yield traffic


def wait_step(space: Workspace, revision: str, number: int, timeout: float = 240) -> None:
    """Until every gateway has said that it routes as this step (from 0) wants."""

    def at() -> bool:
        steps = space.index.revision(revision).get("rollout", {}).get("steps", {})
        return steps.get("number", -1) == number and "startedAt" in steps

    space.index.wait(at, timeout, f"step {number + 1} of {revision}")


def share(traffic: Traffic, revision: str, seconds: float = 10.0) -> float:
    """The part of the answers of the next seconds that this revision gives."""
    before = traffic.snapshot()
    after = traffic.wait(lambda seen: seen.at >= before.at + seconds, seconds + 30, f"{seconds:.0f} s of traffic")
    mine = [seen.revisions[revision].answers if revision in seen.revisions else 0 for seen in (before, after)]
    return (mine[1] - mine[0]) / (after.queries - before.queries)


def route_of(space: Workspace) -> Json:
    route = space.kube.get("HTTPRoute", NAME, space.namespace)
    assert route is not None
    return route


def weights(route: Json) -> dict[str, int]:
    return {one["name"]: one["weight"] for rule in route["spec"]["rules"] for one in rule["backendRefs"]}


def decision(route: Json) -> Json:
    """The last one about a share, written with the weights."""
    found: Json = json.loads(route["metadata"]["annotations"][DECISION])
    return found


def seen_at(route: Json) -> int:
    """The generation that the gateway says it has seen."""
    rows = [one for parent in route["status"]["parents"] for one in parent["conditions"]]
    return min(int(one["observedGeneration"]) for one in rows)


def scale(kube: Kube, name: str, replicas: int) -> None:
    """One of the gateway's Deployments; waits until its pods are so."""
    kube.kubectl("-n", CONTROLLER, "scale", f"deployment/{name}", f"--replicas={replicas}")
    wait_pods(kube, name, replicas)


def restart(kube: Kube, name: str) -> None:
    """As an upgrade of the gateway does; waits until the pods of before have ended."""
    kube.kubectl("-n", CONTROLLER, "rollout", "restart", f"deployment/{name}")
    kube.kubectl("-n", CONTROLLER, "rollout", "status", f"deployment/{name}", "--timeout=180s", timeout=190)
    wait_pods(kube, name, 1)


def wait_pods(kube: Kube, name: str, count: int) -> None:
    def are_there() -> bool:
        pods = kube.list("Pod", CONTROLLER, f"app={name}")
        ready = [one for one in pods for c in one["status"].get("conditions", [])
                 if (c["type"], c["status"]) == ("Ready", "True")]  # fmt: skip
        return len(pods) == len(ready) == count

    wait_for(are_there, 180, f"{count} pods of {name}", last_seen=lambda: kube.kubectl("-n", CONTROLLER, "get", "pods"))


def wait_forgotten(space: Workspace, revision: str) -> None:
    """Until the route names only what serves, and the candidate's own Service is gone."""
    space.index.wait(lambda: weights(route_of(space)) == {NAME: 100}, FORGOTTEN_SECONDS, f"no {revision} in the route")
    gone = lambda: space.kube.get("Service", revision, space.namespace) is None  # noqa: E731
    space.index.wait(gone, FORGOTTEN_SECONDS, f"Service {revision} to be removed")


# ---------------------------------------------------------------- the stories


def test_shares_follow_the_weights_and_no_query_fails_while_the_gateway_restarts(
    served: Workspace, corpus: Corpus, gateway: str
) -> None:
    index, first = served.index, served.index.traffic()
    steps = {"weight": 10, "duration": "20s"}, {"weight": 50, "pause": True}
    served.put("better", corpus.moved())
    attach(served, gateway, *steps)
    with through(served, gateway, bodies(corpus.queries())) as traffic:
        served.apply("better", **canary(served, *steps))
        second = index.wait_new_revision({first})
        wait_step(served, second, 0)
        tenth = share(traffic, second)
        assert tenth == pytest.approx(0.10, abs=0.03)
        wait_step(served, second, 1)
        half = share(traffic, second)
        assert half == pytest.approx(0.50, abs=0.05)
        assert served.ask(corpus.queries(1)[0])["revision"] == first, "who does not come through it sees stable"

        restart(served.kube, "contour")
        restart(served.kube, "envoy")
        again = share(traffic, second)
        assert again == pytest.approx(0.50, abs=0.05)
        print(f"shares at 10, at 50 and after a restart of the gateway: {tenth:.3f} {half:.3f} {again:.3f}")
        assert index.revision(second)["phase"] == "Shifting"

        assert served.say("resume", "on")["result"] == "Done"
        index.wait_revision(second, "Stable")
        assert (weights(route_of(served))[NAME], index.traffic()) == (100, second)
        index.wait(lambda: not index.pods(first), DRAINED_SECONDS, f"the searchers of {first} to be retired")
        wait_forgotten(served, second)
        seen = traffic.wait(lambda s: s.at - s.revisions[first].last_at > 5, 60, f"no more answers of {first}")
    no_failures(seen, at_least=5000)


def test_a_bad_revision_keeps_its_searchers_until_a_gateway_that_was_deaf_has_heard(
    served: Workspace, corpus: Corpus, gateway: str
) -> None:
    """Without its controller Envoy goes on by what it knows: a share of the users still comes to the bad revision."""
    index, first = served.index, served.index.traffic()
    steps = ({"weight": 20, "duration": "5m"},)
    sent = bodies(corpus.queries())
    harmless = [body for number, body in enumerate(sent) if number % CLUSTERS >= CLUSTERS / 2]
    served.put("bad", corpus.spoiled(0.5))
    attach(served, gateway, *steps)
    try:
        with through(served, gateway, harmless, RATE / 2) as traffic:
            served.apply("bad", **canary(served, *steps))
            bad = index.wait_new_revision({first})
            wait_step(served, bad, 0)
            before = route_of(served)
            scale(served.kube, "contour", 0)
            with through(served, gateway, sent) as more:
                index.wait_revision(bad, "RolledBack")
                after = route_of(served)
                assert (weights(after), index.traffic()) == ({NAME: 100, bad: 0}, first)
                assert decision(after)["from"] == bad
                assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1, "one write"
                index.wait(lambda: served.blocked("RouteNotObserved"), 120, "to wait for the gateway")
                served.hold(lambda: len(served.searchers(bad)), 20, "its searchers stay")
                assert share(more, bad, 5.0) == pytest.approx(0.20, abs=0.06)
                no_failures(more.snapshot(), at_least=1000)

                back = more.snapshot().at
                scale(served.kube, "contour", 1)
                index.wait(lambda: seen_at(route_of(served)) >= after["metadata"]["generation"], 60, "to be seen")
                last = more.wait(lambda s: s.at - s.revisions[bad].last_at > 5, 60, f"no more answers of {bad}")
            print(f"{last.revisions[bad].last_at - back:.1f} s after the controller was asked back the last answer")
            index.wait(lambda: not index.pods(bad), DRAINED_SECONDS, f"the searchers of {bad} to be removed")
            wait_forgotten(served, bad)
            seen = traffic.snapshot()
    finally:
        scale(served.kube, "contour", 1)
    for final in (last, seen):
        print(f"{final.queries} queries, {final.failed} failed")
        no_failures(final, at_least=1000)


def test_nobody_notices_that_the_controller_was_away_when_the_last_step_ended(
    served: Workspace, corpus: Corpus, gateway: str
) -> None:
    """Half of the queries still comes by the new revision's own Service, until Envoy has heard."""
    index, first = served.index, served.index.traffic()
    steps = ({"weight": 50, "pause": True},)
    served.put("better", corpus.moved())
    attach(served, gateway, *steps)
    try:
        with through(served, gateway, bodies(corpus.queries())) as traffic:
            served.apply("better", **canary(served, *steps))
            second = index.wait_new_revision({first})
            wait_step(served, second, 0)
            index.wait(lambda: served.blocked("Paused"), 120, "the step to wait")
            scale(served.kube, "contour", 0)
            assert served.say("resume", "on")["result"] == "Done"
            index.wait(lambda: index.traffic() == second, 240, f"{second} to have the Service")
            after = route_of(served)
            assert weights(after) == {NAME: 100, second: 0}
            index.wait_revision(second, "Stable")
            # Envoy still has the old pods behind the front Service, too.
            served.hold(lambda: (second in weights(route_of(served)), len(served.searchers(first))), 50, "both stay")
            scale(served.kube, "contour", 1)
            wait_forgotten(served, second)
            index.wait(lambda: not index.pods(first), DRAINED_SECONDS, f"the searchers of {first} to be retired")
            seen = traffic.wait(lambda s: s.at - s.revisions[first].last_at > 5, 60, f"no more answers of {first}")
    finally:
        scale(served.kube, "contour", 1)
    print(f"{seen.queries} queries, {seen.failed} failed")
    no_failures(seen, at_least=1000)


def test_without_its_gateway_a_canary_waits_and_says_so_and_then_is_taken_back_at_once(
    served: Workspace, corpus: Corpus, gateway: str
) -> None:
    index, first = served.index, served.index.traffic()
    steps = ({"weight": 20, "duration": "5m"},)
    served.put("bad", corpus.spoiled(0.5))
    attach(served, gateway, *steps)  # what this Gateway says of the route stays in its status
    served.apply("bad", **canary(served, *steps, parent=ABSENT))
    bad = index.wait_new_revision({first})
    stalled = index.wait_condition("Stalled", reason="GatewayNotFound", timeout=240)
    assert "gateways/absent" in stalled["message"]
    assert index.condition("Ready")["status"] == "True"
    assert served.ask(corpus.queries(1)[0])["revision"] == first
    print(f"left in the route's status: {route_of(served)['status']['parents']}")

    served.apply("bad", **canary(served, *steps))
    wait_open(served, gateway)
    with through(served, gateway, bodies(corpus.queries())) as traffic:
        index.wait_revision(bad, "RolledBack")
        seen = traffic.wait(lambda s: s.at - s.revisions[bad].last_at > 5, 60, f"no more answers of {bad}")
        trip, last_bad = float(decision(route_of(served))["at"]), seen.revisions[bad].last_at
        print(f"trip to last bad answer {last_bad - trip:.2f} s, {seen.revisions[bad].answers} bad-revision answers")
        assert last_bad - trip <= 10.0
        index.wait(lambda: not index.pods(bad), DRAINED_SECONDS, f"the searchers of {bad} to be removed")
    no_failures(traffic.snapshot(), at_least=1000)
    assert index.traffic() == first
