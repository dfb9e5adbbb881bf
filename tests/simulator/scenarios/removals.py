"""VectorIndexes that are deleted along with their artifacts, and what befalls the Job that removes them."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, stable
from simulator.world import World

from vectorindex_operator.api.v1alpha1 import GROUP
from vectorindex_operator.core.holds import ours

DELETE = {"artifacts__deletionPolicy": "Delete"}


def _is_gone(*, artifacts: bool) -> Callable[[World], list[str]]:
    """The end where the index is gone, and its artifacts with it, or not."""

    def check(w: World) -> list[str]:
        left = [name for kind, name, _ in w.store.everything() if kind.startswith("VectorIndex")]
        wrong = [f"there are still {', '.join(left)}"] if left else []
        return wrong + ([f"artifacts: {w.truth.stored}"] if bool(w.truth.stored) is not artifacts else [])

    return check


def _all_gone(w: World) -> Callable[[], bool]:
    """Also the Job, which stays for ten minutes after its end."""
    return lambda: not list(w.store.everything())


@scenario(_is_gone(artifacts=False))
def removed_with_its_artifacts(w: World) -> Script:
    yield from edited(w, **DELETE)
    yield stable(w, "B")
    w.delete_index(foreground=False)
    yield _all_gone(w)


@scenario(_is_gone(artifacts=False), two_operators=True)
def removed_during_build(w: World) -> Script:
    """The build that goes on publishes nothing after the Job that removes."""
    yield from edited(w, **DELETE)
    yield phase(w, "B", "Building")
    yield w.rng.uniform(0.0, 10.0)
    w.delete_index(foreground=bool(w.rng.randrange(2)))
    yield _all_gone(w)


@scenario(_is_gone(artifacts=False))
def removed_during_soak(w: World) -> Script:
    yield from edited(w, **DELETE)
    yield phase(w, "B", "Soaking")
    w.delete_index(foreground=True)
    yield _all_gone(w)


@scenario(_is_gone(artifacts=True))
def removed_with_its_namespace(w: World) -> Script:
    """Nothing can be made there any more, so nothing is removed, and nothing keeps the namespace."""
    yield from first_is_stable(w, **DELETE)
    w.delete_namespace()
    yield _all_gone(w)


@scenario(_is_gone(artifacts=True))
def removal_fails(w: World) -> Script:
    yield from first_is_stable(w, **DELETE)
    w.truth.collect_exits = (69,) * 100
    w.delete_index(foreground=False)
    yield _all_gone(w)


@scenario(_is_gone(artifacts=True))
def removal_is_refused(w: World) -> Script:
    """A quota lets no Job be made: the revisions are let go all the same."""
    yield from first_is_stable(w, **DELETE)
    w.truth.refused = frozenset({"Job"})
    w.delete_index(foreground=False)
    yield _all_gone(w)
    w.truth.refused = frozenset()


def _has_its_own(w: World) -> list[str]:
    held = [one["metadata"]["name"] for one in w.store.of_kind("VectorIndexRevision") if one["metadata"]["finalizers"]]
    wrong = [f"kept by a finalizer: {held}"] if held != [w.name_of("B")] else []
    return wrong + ([f"artifacts: {w.truth.stored}"] if len(w.truth.stored) != 1 else [])


@scenario(ends("B", builds=2, extra=_has_its_own), two_operators=True)
def removed_and_made_again(w: World) -> Script:
    """At once: the new one builds when what the old one left is gone."""
    yield from first_is_stable(w, **DELETE)
    w.delete_index(foreground=False)
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(_is_gone(artifacts=True))
def retained_after_all(w: World) -> Script:
    """Who changes his mind before he deletes keeps everything."""
    yield from first_is_stable(w, **DELETE)
    w.apply(artifacts__deletionPolicy="Retain")
    yield lambda: not any(one["metadata"].get("finalizers") for one in w.store.of_kind("VectorIndexRevision"))
    w.delete_index(foreground=False)
    yield _all_gone(w)


def _held(w: World) -> set[str]:
    return {name for one in w.store.of_kind("VectorIndexRevision") for name in ours(one["metadata"]["finalizers"])}


@scenario(_is_gone(artifacts=False), classes=("default", "next"))
def removed_by_another_operator(w: World) -> Script:
    """Told to go with its artifacts, moved to another operator, and deleted: that one removes them."""
    yield from first_is_stable(w)
    w.apply(**DELETE)
    yield lambda: all(one["metadata"].get("finalizers") for one in w.store.of_kind("VectorIndexRevision"))
    w.annotate(f"{GROUP}/operator-class", "next")
    yield lambda: _held(w) == {f"{GROUP}/artifacts.next"}
    w.delete_index(foreground=False)
    yield _all_gone(w)


def _is_made_anew(w: World) -> list[str]:
    """Under another name, where the old object was still there when it was made."""
    serving = w.store.get("VectorIndexRevision", w.serving()) or {
        "spec": {"indexSpec": {}},
        "status": {},
        "metadata": {},
    }
    facts = {
        "factory": (serving["spec"]["indexSpec"].get("factory"), "B"),
        "phase": (serving["status"].get("phase"), "Stable"),
        "deleted": (serving["metadata"].get("deletionTimestamp"), None),
        "published": (len(w.truth.published), 2),
        "RolledOut": (w.condition("RolledOut"), "True"),
        "loaded": (w.loaded(), {w.serving()}),
    }
    return [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]


@scenario(_is_made_anew, found_again=1)
def held_revision_deleted(w: World) -> Script:
    """Only its object: it is let go, and made again (its artifact is found published)."""
    yield from edited(w, **DELETE)
    yield stable(w, "B")
    w.delete("VectorIndexRevision", w.name_of("B"))
    yield lambda: w.store.get("VectorIndexRevision", w.name_of("B")) is None
    yield lambda: w.status().get("phase") == "Stable" and not _is_made_anew(w)
