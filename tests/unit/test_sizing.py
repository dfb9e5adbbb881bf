"""How many processes answer the users of a pod, and what they get of its node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import SETTINGS, a_revision, actions, run, seen, spec

from vectorindex_operator.api.quantities import memory_bytes, whole_cores
from vectorindex_operator.api.v1alpha1 import SourcePoll, VectorIndexSpec
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.plan import EnsureSearchers
from vectorindex_operator.manifests import labels, sizing
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import MOST_PROCESSES, PROCESSES_ENV
from vectorindex_searcher.serve.settings import Settings

MIB = 1 << 20
HELD = 128 * MIB
"""Of the artifact that observations.built tells."""
JUDGED = {"guardrails": {"rules": [{"name": "live", "metric": "LiveRecall", "min": "93%"}]}}
ASKED = {"gate": {"queries": {"live": {}}}}


def with_cpu(requests: dict[str, Any], limits: dict[str, Any], **changes: Any) -> VectorIndexSpec:
    """A spec with these resources, and none of the defaults."""
    of = spec(**changes)
    resources = of.searcher.resources.model_copy(update={"requests": requests, "limits": limits})
    return of.model_copy(update={"searcher": of.searcher.model_copy(update={"resources": resources})})


def container(of: VectorIndexSpec, view: RevisionView | None = None) -> dict[str, Any]:
    """The searcher of a stable revision, as its Deployment has it."""
    view = view or a_revision(of, "Stable")
    obs = seen(of, view, traffic=view)
    (action,) = actions(run(obs), EnsureSearchers)
    (one,) = render(action, obs, of, SETTINGS)[0]["spec"]["template"]["spec"]["containers"]
    return dict(one)


def processes(one: dict[str, Any]) -> int:
    """As the searcher reads it."""
    environment = {entry["name"]: entry["value"] for entry in one["env"] if entry["name"] == PROCESSES_ENV}
    return Settings.from_environment(environment).processes


def memory(one: dict[str, Any]) -> tuple[int, int]:
    """MiB."""
    request, limit = (one["resources"][kind]["memory"] for kind in ("requests", "limits"))
    return memory_bytes(request) // MIB, memory_bytes(limit) // MIB


@pytest.mark.parametrize(
    ("text", "cores"),
    [("2", 2), ("2.9", 2), ("2900m", 2), ("57000m", 57), ("0.9", 0), ("500m", 0), ("1k", 1000), ("1.5k", 1500)],
)
def test_whole_cores_of_a_quantity(text: str, cores: int) -> None:
    assert whole_cores(text) == cores


@pytest.mark.parametrize("text", ["", "two", "-1", "1e3", "1mm"])
def test_what_is_no_quantity_is_no_number_of_cores(text: str) -> None:
    with pytest.raises(ValueError, match="CPU quantity"):
        whole_cores(text)


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({"cpu": "1"}, {}, 1),
        ({}, {}, 1),
        ({"cpu": "500m"}, {}, 1),
        ({"cpu": "4"}, {}, 4),
        ({"cpu": "50m"}, {"cpu": "2"}, 2),
        ({"cpu": "2"}, {"cpu": "3900m"}, 3),
        ({"cpu": "64"}, {"cpu": "128"}, MOST_PROCESSES),
    ],
)
def test_a_process_for_each_whole_core_of_the_limit_else_of_the_request(
    requests: dict[str, Any], limits: dict[str, Any], expected: int
) -> None:
    one = container(with_cpu(requests, limits))
    assert processes(one) == expected
    assert (PROCESSES_ENV in {entry["name"] for entry in one["env"]}) is (expected > 1), "one is as it always was"
    request, limit = memory(one)
    assert (request, limit) == (384 + 64 * (expected - 1), 1280 + 256 * (expected - 1))


def test_searchers_of_an_earlier_release_keep_their_one_process() -> None:
    """Or an upgrade of the operator would restart every searcher of a cluster that has more than one core."""
    of = with_cpu({"cpu": "4"}, {})
    view = a_revision(of, "Stable")
    template = view.spec.pod_template
    before = {**template["metadata"], "annotations": {labels.MEMORY: sizing.COUNTS_BUSY}}
    update = {"pod_template": {**template, "metadata": before}}
    one = container(of, replace(view, spec=view.spec.model_copy(update=update)))
    assert processes(one) == 1
    assert memory(one) == (384, 1280)
    assert one == {**container(of), "env": one["env"], "resources": one["resources"]}


def test_a_rollout_that_begins_with_a_shadow_has_as_many_processes_as_any() -> None:
    plain = with_cpu({"cpu": "4"}, {})
    of = with_cpu({"cpu": "4"}, {}, rollout={"shadow": {"maxPerSecond": 5}})
    assert processes(container(of)) == 4
    assert container(of) == container(plain)


@pytest.mark.parametrize("changes", [{}, JUDGED, ASKED, {**JUDGED, **ASKED}], ids=str)
def test_each_process_gets_memory_for_what_it_keeps_of_queries(changes: dict[str, Any]) -> None:
    alone, three = (container(with_cpu({"cpu": cores}, {}, **changes)) for cores in ("1", "3"))
    each = 40 * ("guardrails" in changes) + 10 * ("gate" in changes)
    assert memory(three) == (memory(alone)[0] + 2 * (64 + each), memory(alone)[1] + 2 * (256 + each))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (HELD + sizing.BUSY_BYTES + 3 * sizing.BUSY_WORKER_BYTES, 4),
        (HELD + sizing.BUSY_BYTES + 3 * sizing.BUSY_WORKER_BYTES - 1, 3),
        (HELD + sizing.BUSY_BYTES, 1),
        (64 * MIB, 1),
        (1 << 40, 8),
    ],
)
def test_a_memory_limit_of_the_users_own_bounds_the_processes(limit: int, expected: int) -> None:
    given = {"memory": str(limit)}
    one = container(with_cpu({"cpu": "8"}, given))
    assert processes(one) == expected
    assert one["resources"]["limits"] == given | {"ephemeral-storage": one["resources"]["limits"]["ephemeral-storage"]}


def test_a_memory_request_of_the_users_own_bounds_nothing() -> None:
    assert processes(container(with_cpu({"cpu": "8", "memory": "64Mi"}, {}))) == 8


def test_what_is_kept_of_queries_and_listed_leaves_room_for_fewer() -> None:
    limit = HELD + sizing.BUSY_BYTES + 3 * sizing.BUSY_WORKER_BYTES
    of = with_cpu({"cpu": "8"}, {"memory": str(limit)})
    plain = a_revision(of, "Stable")
    polling = replace(plain, spec=plain.spec.model_copy(update={"source_poll": SourcePoll()}))
    assert [processes(container(of, view)) for view in (plain, polling)] == [4, 3]
    judged = with_cpu({"cpu": "8"}, {"memory": str(limit)}, **JUDGED)
    assert processes(container(judged)) == 3
