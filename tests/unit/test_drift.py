"""When a live object counts as what was rendered: the API server's own additions and spellings are no drift."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from vectorindex_operator.reconcile.drift import difference, matches

RENDERED: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "paused": False,
        "containers": [{"name": "searcher", "args": ["serve"], "envFrom": [], "resources": {"limits": {"cpu": "1"}}}],
        "nodeName": "",
    }
}
LIVE: dict[str, Any] = {
    "metadata": {"resourceVersion": "7"},
    "spec": {
        "replicas": 2,
        "paused": False,
        "containers": [{"name": "searcher", "args": ["serve"], "resources": {"limits": {"cpu": "1"}}, "stdin": False}],
        "revisionHistoryLimit": 10,
    },
}


def test_defaults_and_empty_values_are_no_drift() -> None:
    assert matches(RENDERED, LIVE)
    assert matches({"a": {}}, {"a": None}) is True
    assert matches({"a": None}, {}) is True
    assert matches({"a": {"b": 1}}, {"a": None}) is False


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 3),
        (("spec", "containers", 0, "args"), ["serve", "--debug"]),
        (("spec", "containers", 0, "args"), []),
        (("spec", "containers", 0, "name"), "other"),
        (("spec", "containers", 0, "envFrom"), [{"secretRef": {"name": "s3"}}]),
        (("spec", "containers", 0, "resources", "limits", "cpu"), "2"),
        (("spec", "containers"), "gone"),
        (("spec", "nodeName"), "node-1"),
        (("spec",), None),
    ],
)
def test_a_change_by_hand_is_drift(path: tuple[Any, ...], value: Any) -> None:
    live = deepcopy(LIVE)
    at = live
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    assert not matches(RENDERED, live)


def test_what_others_add_to_a_list_that_is_merged_by_names_is_no_drift() -> None:
    """A sidecar, or a variable of somebody else's: no apply of ours takes it away, so it would be written for ever."""
    live = deepcopy(LIVE)
    live["spec"]["containers"].insert(0, {"name": "proxy", "image": "proxy:1"})
    assert matches(RENDERED, live)
    ours = {"env": [{"name": "OURS", "value": "1"}], "volumes": []}
    theirs = {
        "env": [{"name": "THEIRS", "value": "2"}, {"name": "OURS", "value": "1"}],
        "volumes": [{"name": "theirs"}],
    }
    assert matches(ours, theirs)
    assert difference(ours, {"env": theirs["env"][:1]}) == "env[OURS]"
    assert difference(ours, {"env": [{"name": "OURS", "value": "3"}]}) == "env[OURS].value"
    assert not matches(ours, {"env": "gone"})
    assert not matches({"envFrom": [{"prefix": "A_"}]}, {"envFrom": [{"prefix": "A_"}, {"prefix": "B_"}]})


def test_another_order_is_drift() -> None:
    assert not matches({"a": [1, 2]}, {"a": [2, 1]})
    assert not matches({"a": [1]}, {"a": [1, 2]})


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000000", "1M"), ("2000k", "2M"),
        ("0.1Gi", "107374182400m"), ("0.009", "9m"), ("0.07", "70m"), ("1024Ti", "1Pi"), ("1000T", "1P"),
    ],
)  # fmt: skip
def test_a_quantity_in_the_spelling_of_the_api_server_is_no_drift(written: str, canonical: str) -> None:
    assert matches({"limits": {"cpu": written}}, {"limits": {"cpu": canonical}})


def test_every_thousandth_of_a_cpu_is_the_same_in_millis() -> None:
    """A quantity that never matched would be written again at every pass, for ever."""
    spelled = {f"{n // 1000}.{n % 1000:03}": f"{n}m" for n in range(1, 4000)}
    assert [one for one, other in spelled.items() if not matches(one, other)] == []


@pytest.mark.parametrize(("one", "other"), [("1", "2"), ("1G", "1Gi"), ("1k", "1Ki"), ("v1", "v1.0"), ("1", 1)])
def test_different_values_stay_different(one: object, other: object) -> None:
    assert not matches(one, other)
