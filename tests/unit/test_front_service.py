"""What a user asks of the front Service: patched into what is there, taken away again, never in the way of traffic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from observations import index, spec
from raw_objects import NAME, index_raw
from unit.test_execute import OF, SAID, STABLE, World, quiet, tripped

from vectorindex_operator.api.v1alpha1 import FrontService, Live, VectorIndexStatus
from vectorindex_operator.core import identity
from vectorindex_operator.manifests import labels, service
from vectorindex_operator.reconcile.errors import RefusedError, ReportedError

Json = dict[str, Any]
ASKED: Json = {
    "annotations": {"external-dns.alpha.kubernetes.io/hostname": "search.example.com", "team": "search"},
    "ipFamilyPolicy": "PreferDualStack",
    "trafficDistribution": "PreferClose",
}
REFUSED = RefusedError('422 Invalid: Service "docs" is invalid: spec.ipFamilyPolicy: not on this cluster')


def ask(world: World, asked: Json | None) -> World:
    """Somebody edits spec.searcher.service."""
    edited = spec(searcher={"service": asked}) if asked is not None else OF
    world.change("VectorIndex", NAME, spec=index_raw(index(edited))["spec"])
    return world


def annotations(world: World) -> Json:
    theirs: Json = world.object("Service", NAME)["metadata"]["annotations"]
    return {name: value for name, value in theirs.items() if not name.startswith("vectorindex.dev/")}


def test_what_is_asked_is_patched_into_what_is_there_and_taken_away_again() -> None:
    world = quiet().settle()
    before = world.object("Service", NAME)
    ask(world, ASKED).settle()
    now = world.object("Service", NAME)
    assert annotations(world) == ASKED["annotations"]
    assert (now["spec"]["ipFamilyPolicy"], now["spec"]["trafficDistribution"]) == ("PreferDualStack", "PreferClose")
    for part in ("selector", "ports"):
        assert now["spec"][part] == before["spec"][part]
    assert now["metadata"]["annotations"][labels.DECISION] == before["metadata"]["annotations"][labels.DECISION]
    ask(world, {"annotations": {"team": "shop"}}).settle()
    assert annotations(world) == {"team": "shop"}
    assert "trafficDistribution" not in world.object("Service", NAME)["spec"]
    ask(world, None).settle()
    now = world.object("Service", NAME)
    assert annotations(world) == {}
    assert labels.ASKED not in now["metadata"]["annotations"]
    assert now["spec"]["ipFamilyPolicy"] == "PreferDualStack", "a Service has one in any case"


def test_without_it_nothing_is_written_and_what_others_put_there_stays() -> None:
    world = quiet().settle()
    meta = world.object("Service", NAME)["metadata"]
    meta["annotations"]["cloud.example/neg"] = "x"
    world.run()
    assert world.cluster.writes == []
    ask(world, ASKED).settle()
    ask(world, None).settle()
    assert annotations(world) == {"cloud.example/neg": "x"}


def test_it_touches_no_pod_and_makes_no_revision() -> None:
    """It is live, and no part of what pods are rendered from."""
    world = quiet().settle()
    deployment = world.object("Deployment", STABLE.name)
    ask(world, ASKED).settle()
    assert world.object("Deployment", STABLE.name) == deployment
    assert list(world.phases) == [STABLE.name]
    lives = [Live.of(spec(searcher={"service": one})) for one in (ASKED, {"trafficDistribution": "PreferClose"})]
    assert {identity.live_hash(one) for one in lives} == {identity.live_hash(Live.of(OF))}


def test_what_the_api_server_does_not_take_is_told_and_moves_no_traffic() -> None:
    world = quiet().settle()
    ask(world, ASKED)
    world.cluster.refuse["merge", "Service"] = REFUSED
    with pytest.raises(ReportedError):
        world.run()
    assert world.blocked == [("WriteRefused", "spec.searcher.service")]
    assert world.serving() == STABLE.name
    assert world.ready() == ("True", "Serving")


def test_a_rollback_does_not_carry_it() -> None:
    """The one write that moves the traffic has nothing in it that could be refused for something else."""
    world = tripped()
    ask(world, ASKED)
    world.run()
    assert world.serving() == STABLE.name
    assert annotations(world) == {}, "they come with the pass after it"
    assert annotations(world.settle()) == ASKED["annotations"]


@pytest.mark.parametrize("note", ["", "{", "7", '["a", 7, null]', '["vectorindex.dev/decision", "a"]', "[" * 5000])
def test_a_garbled_note_takes_nothing_of_ours_away(note: str) -> None:
    patch = service.as_asked(None, index(OF), note)
    assert patch["metadata"]["annotations"].keys() <= {"a", labels.ASKED}
    assert patch["spec"] == {}


def test_the_note_names_what_was_asked_for() -> None:
    patch = service.as_asked(FrontService.model_validate(ASKED), index(OF), "")
    assert json.loads(patch["metadata"]["annotations"][labels.ASKED]) == sorted(
        (*ASKED["annotations"], "ipFamilyPolicy", "trafficDistribution")
    )


def test_a_service_of_somebody_else_is_left_alone() -> None:
    world = quiet()
    world.object("Service", NAME)["metadata"]["ownerReferences"][0]["uid"] = "uid-other"
    ask(world, ASKED)
    world.run()
    assert annotations(world) == {}


def test_an_index_without_a_service_asks_for_nothing() -> None:
    view = index(spec(searcher={"service": ASKED}), VectorIndexStatus(conditions=SAID))
    world = World(index_raw(view))
    world.run()
    assert world.cluster.get("Service", "team-a", NAME) is None
