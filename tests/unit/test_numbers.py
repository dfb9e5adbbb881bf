"""Numbers that people write without quotes: what each stands for, what is refused, and that no hash depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from observations import spec
from pydantic import ValidationError

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core import identity

RELEASED = yaml.safe_load((Path(__file__).parent / "golden" / "released-hashes.yaml").read_text())
RULE = "guardrails.rules"


def hashes(of: dict[str, Any]) -> dict[str, str]:
    read = VectorIndexSpec.model_validate(of)
    return {
        "digest": identity.digest(read, "f0f0"),
        "source": identity.source_hash(read),
        "build": identity.build_hash(read),
        "gate": identity.gate_hash(read),
        "thresholds": identity.thresholds_hash(read),
    }


def field(path: str, value: object) -> dict[str, Any]:
    """The changes that set one field."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def stored(path: str, value: object) -> object:
    found: Any = spec(**field(path, yaml.safe_load(f"value: {value}")["value"])).wire()
    for key in path.split("."):
        found = found[key]
    return found


def rule(**fields: object) -> dict[str, Any]:
    return {"guardrails": {"rules": [{"name": "one", "mode": "Observe", **fields}]}}


@pytest.mark.parametrize("released", RELEASED, ids=lambda released: released["name"])
def test_what_a_release_hashed_has_the_same_hashes(released: dict[str, Any]) -> None:
    assert hashes(released["spec"]) == released["hashes"]


@pytest.mark.parametrize("released", [one for one in RELEASED if "likewise" in one], ids=lambda one: one["name"])
def test_a_number_is_the_text_it_stands_for(released: dict[str, Any]) -> None:
    assert released["likewise"] != released["spec"]
    quoted, unquoted = (VectorIndexSpec.model_validate(released[key]) for key in ("spec", "likewise"))
    assert unquoted == quoted
    assert unquoted.wire() == quoted.wire()
    assert hashes(released["likewise"]) == released["hashes"]


@pytest.mark.parametrize(
    ("path", "written", "text"),
    [
        ("build.resources.requests.cpu", "2", "2"),
        ("build.resources.requests.cpu", "2.0", "2"),
        ("build.resources.requests.cpu", "0.5", "0.5"),
        ("build.resources.requests.cpu", "1.0e-7", "0.0000001"),
        ("build.resources.requests.memory", "2147483648", "2147483648"),
        ("build.resources.requests.memory", "1.0e+3", "1000"),
        ("build.resources.requests.memory", "500M", "500M"),
        ("searcher.resources.limits.cpu", "1.1", "1.1"),
        ("source.poll", "0", "0"),
        ("source.poll", "0.0", "0"),
        ("source.poll", "5m", "5m"),
        ("source.minInterval", "0", "0s"),
        ("rollout.soak.duration", "0", "0s"),
        ("rollout.keepPrior", "0", "0s"),
        ("gate.maxCountDrop", "0", "0%"),
        ("gate.maxCountRise", "0", "0%"),
        ("gate.maxCountDrop", "10%", "10%"),
        ("index.objective.memoryLimit", "4294967296", "4294967296"),
        ("index.objective.memoryLimit", "1.5e+9", "1500000000"),
    ],
)
def test_what_is_stored_of_a_number(path: str, written: str, text: str) -> None:
    assert stored(path, written) == text


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"metric": "ClickDepth", "max": 3.5}, "3.5"),
        ({"metric": "ClickDepth", "max": 3}, "3"),
        ({"metric": "TopScore", "min": 0.45}, "0.45"),
        ({"metric": "TopScore", "min": -0.0}, "0"),
        ({"metric": "TopScore", "min": -12}, "-12"),
    ],
)
def test_a_bound_that_is_a_number(fields: dict[str, Any], bound: str) -> None:
    (read,) = spec(**rule(**fields)).guardrails.rules
    assert (read.max or read.min) == bound


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("source.poll", 5, "5 is not understood: a number needs a unit"),
        ("source.poll", False, "valid string"),
        ("source.minInterval", 0.5, "a number needs a unit"),
        ("gate.maxCountDrop", 10, "a number needs a unit (2%, 0.5%); only 0 stands alone"),
        ("build.timeout", 0, "valid string"),
        ("build.resources.requests.cpu", True, "valid string"),
        ("build.resources.requests.cpu", -1, "should match pattern"),
        ("build.resources.requests.cpu", float("nan"), "valid string"),
        ("build.resources.requests.memory", 1e300, "at most 32 characters"),
        ("index.objective.memoryLimit", 0, "should match pattern"),
        ("index.objective.memoryLimit", 1.5, "should match pattern"),
    ],
)
def test_a_number_that_says_nothing_is_refused(path: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(**field(path, value))
    (error,) = refused.value.errors()
    assert error["loc"] == tuple(path.split("."))
    assert says in error["msg"]
