"""Reading a VectorIndex: what one stored object says wrongly must not stop the work on the others."""

from __future__ import annotations

from typing import Any

from vectorindex_operator.reconcile.observe import observe

META = {"namespace": "shop", "uid": "u1", "creationTimestamp": "2026-11-20T12:00:00Z", "resourceVersion": "7"}
INDEX = {
    "metadata": {**META, "name": "products", "generation": 2},
    "spec": {"source": {"s3": {"bucket": "vectors"}}, "artifacts": {"s3": {"bucket": "indexes"}}},
}


class Stored:
    """A cluster that answers from what it is given."""

    def __init__(self, objects: dict[str, list[dict[str, Any]]]) -> None:
        self.objects = objects

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return next((o for o in self.objects.get(kind, []) if o["metadata"]["name"] == name), None)

    def children(self, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        return self.objects.get(kind, [])


def test_a_revision_that_cannot_be_read_is_left_out() -> None:
    owned = {"ownerReferences": [{"uid": "u1"}]}
    unreadable = {"metadata": {**META, **owned, "name": "products-1"}, "spec": {"written": "by another version"}}
    cluster: Any = Stored({"VectorIndex": [INDEX], "VectorIndexRevision": [unreadable]})
    seen = observe(cluster, "shop", "products", now=1_800_000_000.0)
    assert seen is not None
    assert dict(seen.revisions) == {}
    assert seen.index.generation == 2


def test_a_spec_that_cannot_be_read_says_field_and_value() -> None:
    wrong = {**INDEX, "spec": {**INDEX["spec"], "history": "many"}}
    cluster: Any = Stored({"VectorIndex": [wrong]})
    seen = observe(cluster, "shop", "products", now=1_800_000_000.0)
    assert seen is not None
    assert seen.index.spec is None
    assert "spec.history" in seen.index.spec_error
    assert "'many'" in seen.index.spec_error


def test_an_index_that_is_gone_is_none() -> None:
    cluster: Any = Stored({})
    assert observe(cluster, "shop", "products", now=0.0) is None
