"""Manifests that `lint` is held against: those that the API server is known to refuse or to take, and one for each
change of a field that nobody thought of. What is right of the latter only an API server can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from apiserver import test_accepts, test_refuses
from apiserver.manifests import FULL_SPEC, LEAVE_OUT, changed

Json = dict[str, Any]
SMALLEST: Json = {
    "apiVersion": "vectorindex.dev/v1alpha1",
    "kind": "VectorIndex",
    "metadata": {"name": "lint", "namespace": "default"},
    "spec": {"source": {"s3": {"bucket": "embeddings"}}, "artifacts": {"s3": {"bucket": "indexes"}}},
}
_VALUES = (
    LEAVE_OUT,
    None,
    "",
    "0",
    "x",
    "1h",
    "2%",
    "x" * 600,
    0,
    -1,
    1,
    7,
    1.5,
    10**12,
    True,
    [],
    {},
    [{}],
    ["a", "a"],
)


def rows(test: Callable[..., None]) -> list[tuple[Any, ...]]:
    """What a test is parametrized with."""
    found: list[tuple[Any, ...]] = test.pytestmark[0].args[1]  # type: ignore[attr-defined]
    return found


def refused() -> list[tuple[str, Json, str]]:
    """(name, manifest, path of the field that is named)."""
    cases = rows(test_refuses.test_a_bad_field_is_refused_by_name)
    return [(f"{path}={value!r}"[:80], changed(SMALLEST, path, value), field) for path, value, field, _ in cases]


def accepted() -> list[tuple[str, Json]]:
    """(name, manifest)."""
    cases = [
        *rows(test_accepts.test_a_part_left_out_gets_the_same_defaults_from_both),
        *rows(test_accepts.test_a_number_without_quotes_is_kept_and_read),
        ("gate", {"k": None, "recall": None}),
    ]
    known = [(f"{field}={value!r}"[:80], changed(SMALLEST, f"spec.{field}", value)) for field, value in cases]
    return [("smallest", SMALLEST), ("full", SMALLEST | {"spec": FULL_SPEC}), *known]


def mutated() -> Iterator[tuple[str, Json]]:
    """The full manifest with each of its fields replaced by each of some values of all kinds."""
    full = SMALLEST | {"spec": FULL_SPEC}
    for path in _paths("spec", FULL_SPEC):
        for value in _VALUES:
            yield f"{path}={'absent' if value is LEAVE_OUT else value!r}"[:80], changed(full, path, value)


def _paths(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if "/" not in key:
                yield f"{path}.{key}"
                yield from _paths(f"{path}.{key}", part)
    elif isinstance(value, list):
        for at, part in enumerate(value[:2]):
            if isinstance(part, dict):
                yield from _paths(f"{path}.{at}", part)
