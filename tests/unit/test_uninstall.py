"""Before the chart is uninstalled no finalizer is left, and the operator puts none back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from observations import a_revision, index, spec
from raw_objects import Stored, index_raw, revision_raw

from vectorindex_operator.adapters.lease import LeaseTimes
from vectorindex_operator.core.holds import FINALIZER
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError, UnreachableError
from vectorindex_operator.uninstall import GIVE_UP_SECONDS, Uninstall

Json = dict[str, Any]
DELETES = spec(artifacts={"deletionPolicy": "Delete"})
DURATION = float(LeaseTimes().duration)


def revision(*finalizers: str) -> Json:
    one = revision_raw(a_revision(spec(), "Stable"))
    return one | {"metadata": {**one["metadata"], "finalizers": list(finalizers)}}


class Listing(Stored):
    """Objects in the order in which they came; `says`: what the next requests are answered with."""

    says: Callable[[], None] = staticmethod(lambda: None)

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Any:
        self.says()
        yield [{"kind": kind, "metadata": o["metadata"]} if metadata_only else o for o in self.children(kind, "", "")]

    def merge(self, manifest: Json) -> Json:
        self.says()
        return super().merge(manifest)


class Story:
    """A clock that goes on with each sleep, and a Lease that somebody else holds at first."""

    def __init__(self, *objects: Json, finalizer: str = FINALIZER, refused: int = 0) -> None:
        self.cluster = Listing(*objects)
        self.now, self.refused = 1000.0, refused
        self.taken: list[float] = []
        """When the Lease was taken, and renewed."""
        listed: Any = self.cluster
        self.one = Uninstall(listed, self._take, (), finalizer, DURATION, lambda: self.now, self._sleep)

    def _take(self) -> bool:
        self.refused -= 1
        if self.refused < 0:
            self.taken.append(self.now)
        return self.refused < 0

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def left(self) -> list[list[str]]:
        return [one["metadata"]["finalizers"] for one in self.cluster.children("VectorIndexRevision", "", "")]


def test_the_finalizers_go_once_the_operator_can_write_no_more() -> None:
    story = Story(revision(FINALIZER, "others.example/keeps"), refused=3)
    assert story.one.run()
    assert story.left() == [["others.example/keeps"]]
    assert story.now - story.taken[0] >= DURATION
    assert max(b - a for a, b in zip(story.taken, story.taken[1:], strict=False)) < DURATION / 3, "it is renewed"
    assert story.taken[-1] == story.now, "and once more at the end"


def test_nothing_is_taken_from_an_operator_whose_indexes_retain_everything() -> None:
    story = Story(index_raw(index(spec())), revision())
    assert story.one.run()
    assert (story.taken, story.cluster.writes) == ([], [])


def test_an_index_that_asks_for_it_is_enough_to_stop_the_operator() -> None:
    """It may make a revision with a finalizer at any moment."""
    story = Story(index_raw(index(DELETES)))
    assert story.one.run()
    assert story.taken != []


def test_the_finalizers_of_another_class_are_its_own_affair() -> None:
    story = Story(revision(f"{FINALIZER}.next"))
    assert story.one.run()
    assert story.left() == [[f"{FINALIZER}.next"]]


@pytest.mark.parametrize("error", [UnreachableError("500"), ConflictError("409")])
def test_what_goes_wrong_is_tried_again(error: Exception) -> None:
    story = Story(index_raw(index(DELETES)), revision(FINALIZER))
    fails = [error] * 30

    def says() -> None:
        if fails:
            raise fails.pop()

    story.cluster.says = says  # type: ignore[method-assign]
    assert story.one.run()
    assert story.left() == [[]]


def test_without_the_crds_there_is_nothing_to_do() -> None:
    story = Story()

    def says() -> None:
        raise RefusedError("404 NotFound: the server could not find the requested resource")

    story.cluster.says = says  # type: ignore[method-assign]
    assert story.one.run()


def test_it_ends_and_says_so_where_it_is_refused() -> None:
    story = Story(revision(FINALIZER))
    story.cluster.refuse = {("merge", "VectorIndexRevision"): RefusedError("403 Forbidden")}
    assert not story.one.run()
    assert story.now - 1000.0 <= GIVE_UP_SECONDS + 1.0
