"""A write that is undone each time is made a few times at once, and then ever more rarely; any other one at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from observations import NOW, SETTINGS, a_revision, index, source, spec
from raw_objects import (
    NAME,
    NAMESPACE,
    Raw,
    Silent,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.api.v1alpha1 import Condition, VectorIndexStatus
from vectorindex_operator.core.events import Event
from vectorindex_operator.reconcile.errors import ClusterError, ReportedError
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.repeats import AT_ONCE, LONGEST_PAUSE_SECONDS, MOST_KEPT, Repeats

OF = spec()
STABLE = a_revision(OF, "Stable")
SAID = (Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z"),)
LOOK_SECONDS = 30.0
LOOKS = 240
"""Two hours of them."""
FEW = 30


class Fought(Stored):
    """Somebody has another mind about an object: `webhook` changes what is written in the very write."""

    def __init__(self, *objects: Raw) -> None:
        super().__init__(*objects)
        self.webhook: Callable[[Raw], None] = lambda stored: None

    def _put(self, verb: str, new: Raw) -> Raw:
        stored = super()._put(verb, new)
        self.webhook(stored)
        return stored


class World:
    """An index whose stable revision serves, and a Reconciler; passes come as often as it is looked at."""

    def __init__(self) -> None:
        view = index(OF, VectorIndexStatus(source=source(OF), conditions=SAID))
        mine = [searcher_pod(STABLE, number) for number in range(2)]
        about = [front_raw(STABLE), revision_raw(STABLE), deployment_raw(STABLE), slice_raw(STABLE)]
        self.cluster, self.now, self.events = Fought(index_raw(view), *about, *mine), NOW, list[Event]()
        port: Any = self.cluster
        self.reconciler = Reconciler(port, Silent(), self, SETTINGS, clock=lambda: self.now)
        for _ in range(8):
            self.look()
        self.cluster.writes.clear()

    def send(self, regarding: Raw, event: Event) -> None:
        self.events.append(event)

    def look(self) -> None:
        with suppress(ReportedError, ClusterError):
            self.reconciler.run(NAMESPACE, NAME)
        self.now += LOOK_SECONDS

    def object(self, kind: str, name: str) -> Raw:
        found = self.cluster.get(kind, NAMESPACE, name)
        assert found is not None
        return found

    def written(self, kind: str) -> int:
        return sum(subject.startswith(f"{kind}/") for _, subject in self.cluster.writes)

    def said(self) -> list[str]:
        rows = self.object("VectorIndex", NAME)["status"].get("blockedBy", ())
        return [f"{row['subject']}: {row['message']}" for row in rows if row["rule"] == "WriteUndone"]


def five_replicas(stored: Raw) -> None:
    if stored["kind"] == "Deployment":
        stored["spec"] = {**stored["spec"], "replicas": 5}


def all_pods(stored: Raw) -> None:
    if stored["kind"] == "Service":
        stored["spec"] = {**stored["spec"], "publishNotReadyAddresses": True}


def no_traffic(stored: Raw) -> None:
    if stored["kind"] == "Service":
        stored["spec"] = {**stored["spec"], "selector": {"app": "nobody"}}


def forgetful(stored: Raw) -> None:
    if stored["kind"] == "VectorIndex":
        stored["status"] = {**stored["status"], "phase": "Elsewhere"}


WEBHOOKS = {"Deployment": five_replicas, "Service": all_pods, "Service ": no_traffic, "VectorIndex": forgetful}


@pytest.mark.parametrize("kind", WEBHOOKS)
def test_what_a_webhook_changes_in_the_very_write_is_not_written_for_ever(kind: str) -> None:
    world = World()
    world.cluster.webhook = WEBHOOKS[kind]
    for one in list(world.cluster.objects):
        world.cluster.webhook(one)
    for _ in range(LOOKS):
        world.look()
    assert 0 < world.written(kind.strip()) <= FEW
    assert len(world.cluster.writes) <= 4 * FEW
    assert len(world.events) <= 2 * FEW


def test_it_is_said_which_field_of_which_object_a_webhook_changes() -> None:
    world = World()
    world.cluster.webhook = five_replicas
    five_replicas(world.object("Deployment", STABLE.name))
    for _ in range(LOOKS):
        world.look()
        (row,) = world.said()
        assert row.startswith(f"Deployment/{STABLE.name}: undone each time: ")
        assert "spec.replicas" in row
    assert world.written("VectorIndex") == 1, "a row that stays is written once"
    world.cluster.webhook = lambda stored: None
    world.now += LONGEST_PAUSE_SECONDS
    for _ in range(3):
        world.look()
    assert (world.said(), world.object("Deployment", STABLE.name)["spec"]["replicas"]) == ([], 2)


def test_what_another_controller_changes_back_is_not_written_for_ever() -> None:
    world = World()
    for _ in range(LOOKS):
        five_replicas(world.object("Deployment", STABLE.name))
        world.look()
    assert AT_ONCE < world.written("Deployment") <= FEW
    assert any("spec.replicas" in row for row in world.said())


def test_any_other_write_is_made_at_once() -> None:
    world = World()
    for _ in range(LOOKS):
        five_replicas(world.object("Deployment", STABLE.name))
        world.look()
    world.object("VectorIndex", NAME)["spec"] = spec(searcher={"replicas": 3}).wire()
    world.look()
    assert world.object("Deployment", STABLE.name)["spec"]["replicas"] == 3


KEY = ("apply", "Deployment", NAMESPACE, NAME)


def repeated(times: int) -> Repeats:
    repeats = Repeats()
    for _ in range(times):
        repeats.made(KEY, b"one", NOW)
    return repeats


def test_pauses_double_up_to_the_longest_and_what_was_long_ago_is_forgotten() -> None:
    assert [repeated(times).pause(KEY, b"one", NOW) for times in (1, 4, 5, 6, 7)] == [0, 0, 10, 20, 40]
    assert repeated(100).pause(KEY, b"one", NOW) == LONGEST_PAUSE_SECONDS
    assert repeated(100).pause(KEY, b"one", NOW + LONGEST_PAUSE_SECONDS) == 0
    assert repeated(100).pause(KEY, b"one", NOW - 7200) == 0, "the clock was set back"
    assert repeated(100).pause(KEY, b"other", NOW) == 0
    long_ago = repeated(100)
    long_ago.made(KEY, b"one", NOW + 3600)
    assert long_ago.pause(KEY, b"one", NOW + 3600) == 0


def test_what_was_removed_by_us_may_be_made_again_at_once() -> None:
    cluster: Any = Stored()
    repeats = repeated(100)
    repeats.over(cluster, lambda: NOW).delete("Deployment", NAMESPACE, NAME, "uid")
    assert repeats.pause(KEY, b"one", NOW) == 0


def test_as_many_writes_are_remembered_as_there_may_be() -> None:
    repeats = Repeats()
    for number in range(MOST_KEPT + 10):
        repeats.made(("apply", "Deployment", NAMESPACE, str(number)), b"one", NOW)
        repeats.made(KEY, b"one", NOW)
    assert len(repeats._last) == MOST_KEPT
    assert repeats.pause(KEY, b"one", NOW) == LONGEST_PAUSE_SECONDS
