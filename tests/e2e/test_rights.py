"""What the operator really asked in all tests of this layer, against what the chart lets it ask.

Last of the layer (conftest.py). Only requests of pods with this checkout's image count: one test runs an earlier
release for a while, whose rights were others.
"""

from __future__ import annotations

import pytest
import yaml
from e2e.operator_release import Operator
from layers import unavailable
from rights import BY_ADMISSION, Right, asked, granted, refused, remembered

from harness import audit, release
from harness.errors import LackingError
from harness.images import Images
from harness.kube import Json


@pytest.fixture(scope="module")
def events(operator: Operator, images: Images) -> list[Json]:
    """Every request of this checkout's operator since the layer began, those about no object left out."""
    try:
        seen = audit.events(operator.cluster, release.NAMESPACE, operator.since)
    except LackingError as lacking:
        pytest.skip(str(lacking))
    ours = audit.replica_sets(operator.kube, release.NAMESPACE, images.operator.reference)
    return [event for event in seen if audit.pod_of(event).rpartition("-")[0] in ours]


@pytest.fixture(scope="module")
def chart(operator: Operator) -> set[Right]:
    """What the installed release's roles give it."""
    manifest = operator.cluster.helm("get", "manifest", operator.release, "--namespace", release.NAMESPACE)
    return granted(one for one in yaml.safe_load_all(manifest) if one)


def test_the_operator_asks_for_nothing_that_the_chart_does_not_give(events: list[Json], chart: set[Right]) -> None:
    assert asked(events) - chart == set()


def test_nothing_that_it_asks_is_refused(operator: Operator, events: list[Json]) -> None:
    """But while an earlier chart's roles were in force, under which a pod of this release may still end."""
    assert refused(event for event in events if not operator.under_other_roles(audit.received(event))) == {}


def test_the_chart_gives_nothing_that_neither_layer_asked_for(events: list[Json], chart: set[Right]) -> None:
    before = remembered()
    if before is None:
        unavailable("e2e", "the apiserver layer has not run with this code", "Run it first: make test-apiserver")
    here = asked(events)
    print(f"asked for in the apiserver layer only: {sorted((chart & before) - here)}")
    assert chart - here - before == BY_ADMISSION
