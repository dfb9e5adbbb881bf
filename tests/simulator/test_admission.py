"""The model of server-side apply: what each manager sent is its own, until another one sends something else."""

from __future__ import annotations

from typing import Any

from simulator.admission import Json
from simulator.store import OURS, Store

NAME, THEM = "one", "them"


def applied(*sent: tuple[str, Json]) -> Json:
    """What a Deployment's spec is when managers have applied these, one after another."""
    store = Store(lambda: 0.0)
    for manager, spec in sent:
        store.apply({"kind": "Thing", "metadata": {"name": NAME}, "spec": spec}, manager)
    found: Json = store.kinds["Thing"][NAME].get("spec", {})
    return found


def named(*names: str, **fields: Any) -> Json:
    return {"containers": [{"name": name, **fields} for name in names]}


def test_what_its_one_owner_no_longer_sends_goes_and_what_others_sent_stays() -> None:
    assert applied((OURS, {"a": 1, "b": 2}), (OURS, {"a": 1})) == {"a": 1}
    assert applied((OURS, {"a": 1}), (THEM, {"b": 2}), (OURS, {"a": 3})) == {"a": 3, "b": 2}
    assert applied((OURS, {"a": 1}), (THEM, {"a": 1}), (THEM, {})) == {"a": 1}, "both had sent it"


def test_who_forces_another_value_owns_it_alone_and_takes_it_away_with_him() -> None:
    assert applied((OURS, {"a": 1, "b": 2}), (THEM, {"a": 5})) == {"a": 5, "b": 2}
    assert applied((OURS, {"a": 1, "b": 2}), (THEM, {"a": 5}), (THEM, {})) == {"b": 2}
    assert applied((OURS, {"a": 1}), (THEM, {"a": 5}), (OURS, {"a": 1}), (THEM, {})) == {"a": 1}
    nested = (OURS, {"labels": {"a": "1", "b": "2"}})
    assert applied(nested, (THEM, {"labels": {"b": "x", "c": "3"}}), (THEM, {})) == {"labels": {"a": "1"}}


def test_items_of_a_list_are_owned_one_by_one_and_keep_their_order() -> None:
    both = applied((OURS, named("ours")), (THEM, named("theirs")))
    assert both == named("ours", "theirs")
    assert applied((OURS, named("ours")), (THEM, named("theirs")), (OURS, named("new"))) == named("theirs", "new")
    assert applied((OURS, named("ours")), (THEM, named("ours", "theirs")), (THEM, {})) == named("ours")
    forced = applied((OURS, named("ours", image="1")), (THEM, named("ours", image="2")), (THEM, named("ours")))
    assert forced == named("ours")
