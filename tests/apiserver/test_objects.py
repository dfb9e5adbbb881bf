"""What becomes of the objects once they are stored: status, ownership of fields, scale, what `kubectl get` shows."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver.manifests import FULL_SPEC, changed
from control_plane import Api, ControlPlane, Json, path_of
from observations import built, report, spec

from vectorindex_operator.api.v1alpha1 import (
    Condition,
    Restored,
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_searcher.contract import Columns, Identity, IndexSpec, Outcome

OPERATOR = "vectorindex-operator"
NOW = "2026-11-20T12:00:00Z"
STATUS = VectorIndexStatus(
    observed_generation=1,
    phase="Ready",
    reason="Promoted",
    stable="products-1a2b3c",
    recall="0.962",
    ready="2/2",
    replicas=2,
    selector="vectorindex.dev/revision=products-1a2b3c",
    conditions=(
        Condition(type="RolledOut", status="True", reason="Promoted", last_transition_time=NOW, observed_generation=1),
        Condition(type="Ready", status="True", reason="Serving", last_transition_time=NOW, message="2 of 2 pods"),
    ),
)


def status_of(manifest: Json, **status: Any) -> Json:
    return {key: manifest[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}


@pytest.fixture
def revision(name: str) -> Json:
    spec = RevisionSpec.model_validate(
        {
            "index": "products",
            "digest": "1a2b3c",
            "fingerprint": "f",
            "image": "example/searcher:1",
            "source": FULL_SPEC["source"]["s3"],
            "artifacts": FULL_SPEC["artifacts"]["s3"],
            "columns": FULL_SPEC["source"]["columns"],
            "embedding": {"model": "m", "version": "1", "dimension": 384, "metric": "InnerProduct"},
            "indexSpec": FULL_SPEC["index"],
            "segments": ["keyword"],
            "podTemplate": {"spec": {"containers": [{"name": "searcher", "securityContext": {"runAsNonRoot": True}}]}},
        }
    )
    return {
        "apiVersion": "vectorindex.dev/v1alpha1",
        "kind": "VectorIndexRevision",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec.wire(),
    }


def test_status_is_written_apart_from_the_spec(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    through_spec = api.apply(smallest | status_of(smallest, **STATUS.wire()))
    assert "status" not in through_spec.body
    answer = api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status")
    assert answer.ok, answer.message
    assert VectorIndexStatus.model_validate(answer.body["status"]) == STATUS
    assert answer.body["metadata"]["generation"] == 1
    assert answer.body["spec"] == VectorIndexSpec.model_validate(smallest["spec"]).wire()


def test_nobody_owns_what_another_applies(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    answer = api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status")
    owners = {
        (entry["manager"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in answer.body["metadata"]["managedFields"]
    }
    assert set(owners) == {("kubectl", ""), (OPERATOR, "status")}
    assert set(owners["kubectl", ""]) == {"f:spec"}
    assert set(owners[OPERATOR, "status"]) == {"f:status"}
    assert set(owners["kubectl", ""]["f:spec"]) == {"f:source", "f:artifacts"}, "defaults belong to nobody"


def test_applying_a_status_again_writes_nothing(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    first = api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status")
    second = api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status")
    assert first.body["metadata"]["resourceVersion"] == second.body["metadata"]["resourceVersion"]


def test_what_the_operator_leaves_out_of_a_status_is_gone(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    assert api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status").ok
    fewer = STATUS.model_copy(update={"conditions": STATUS.conditions[:1]})
    answer = api.apply(status_of(smallest, **fewer.wire() | {"phase": ""}), OPERATOR, subresource="status")
    assert [one["type"] for one in answer.body["status"]["conditions"]] == ["RolledOut"]
    answer = api.apply(status_of(smallest, phase=""), OPERATOR, subresource="status")
    assert answer.body["status"] == {"phase": ""}, "a status has no defaults"


def test_what_the_operator_empties_stays_empty(api: Api, revision: Json) -> None:
    """Server-side apply makes null of an emptied object that several may own, and the schema refuses null."""
    assert api.apply(revision, OPERATOR).ok
    steps: tuple[Json, ...] = ({"phaseTimes": {"Surging": NOW}}, {"phaseTimes": {}})
    for evidence in steps:
        answer = api.apply(status_of(revision, **evidence), OPERATOR, subresource="status")
        assert answer.ok, answer.message
        assert answer.body["status"] == evidence


def test_two_managers_may_each_own_a_condition(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    assert api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status").ok
    theirs = {"type": "Paid", "status": "True", "reason": "Invoice", "lastTransitionTime": NOW, "message": ""}
    answer = api.apply(status_of(smallest, conditions=[theirs]), "billing", subresource="status")
    assert answer.ok, answer.message
    assert len(answer.body["status"]["conditions"]) == 3


def test_a_condition_without_a_reason_is_refused(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    bad = {"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": NOW}
    answer = api.apply(status_of(smallest, conditions=[bad]), OPERATOR, subresource="status")
    assert "status.conditions[0].reason" in answer.message


def test_scale_reads_and_writes_the_searchers(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    assert api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status").ok
    scale = api.get(f"{path_of(smallest)}/scale").body
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": STATUS.selector}
    patch = {"spec": {"replicas": 7}}
    answer = api.request("PATCH", f"{path_of(smallest)}/scale", patch, "application/merge-patch+json")
    assert answer.ok, answer.message
    assert api.get(path_of(smallest)).body["spec"]["searcher"]["replicas"] == 7
    assert api.apply(smallest).body["spec"]["searcher"]["replicas"] == 7, "a manifest without replicas leaves them"
    zero = api.request("PATCH", f"{path_of(smallest)}/scale", {"spec": {"replicas": 0}}, "application/merge-patch+json")
    assert "spec.searcher.replicas" in zero.message


def test_a_revision_is_kept_as_it_is(api: Api, revision: Json) -> None:
    answer = api.apply(revision, OPERATOR)
    assert answer.ok, answer.message
    assert answer.body["spec"] == revision["spec"], "pod template and all, nothing added"
    assert RevisionSpec.model_validate(answer.body["spec"]).wire() == revision["spec"]


@pytest.mark.parametrize(
    ("path", "value"), [("digest", "other"), ("image", "other:2"), ("podTemplate", {}), ("segments", [])]
)
def test_a_revision_never_changes(api: Api, revision: Json, path: str, value: object) -> None:
    assert api.apply(revision, OPERATOR).ok
    answer = api.apply(changed(revision, f"spec.{path}", value), OPERATOR)
    assert answer.status == 422
    assert answer.fields == ("spec",)
    assert "a revision never changes" in answer.message


def test_what_a_revision_was_before_is_kept(api: Api, revision: Json) -> None:
    """As it was found in a bucket, words of another release among it."""
    known = Outcome(
        version=1,
        identity=Identity(namespace="team-a", name="products", uid="u"),
        revision="products-1a2b3c4d",
        outcome="Promoted",
        at="2026-11-20T12:00:00.000001Z",
        digest="1a2b3c",
        fingerprint="f",
        columns=Columns(metadata=("title",)),
        index=IndexSpec(factory="IVF64,Flat", search_params={"nprobe": 4}),
        segments=("keyword",),
        min_score=0.25,
        gate={"verdict": "Pass", "looks": 2, "more": {"a": [1]}},
        build=built("1a2b3c"),
        report=report(spec()),
    )
    outcome = Outcome.read(known.wire() | {"mood": {"good": True}})
    revision["spec"] |= {"restored": Restored(phase="Stable", outcome=outcome).wire()}
    answer = api.apply(revision, OPERATOR)
    assert answer.ok, answer.message
    assert answer.body["spec"] == revision["spec"]
    read = RevisionSpec.read(answer.body["spec"])
    assert read.restored is not None
    assert (read.unread, read.restored.outcome) == (frozenset(), outcome)


def test_the_evidence_of_a_revision_is_kept(api: Api, revision: Json) -> None:
    assert api.apply(revision, OPERATOR).ok
    spec = VectorIndexSpec.model_validate(FULL_SPEC)
    status = RevisionStatus.model_validate(
        {
            "phase": "Soaking",
            "phaseTimes": {"Surging": NOW, "Soaking": NOW},
            "recall": "0.962",
            "rollout": {
                "settings": spec.rollout.wire(),
                "guardrails": spec.guardrails.wire(),
                "gateHash": "g",
                "startedAt": NOW,
                "baseline": {"segments": {"keyword": {"latency": {"188": 40}, "errors": 0}}},
            },
        }
    )
    answer = api.apply(status_of(revision, **status.wire()), OPERATOR, subresource="status")
    assert answer.ok, answer.message
    assert RevisionStatus.model_validate(answer.body["status"]) == status


def test_what_another_release_wrote_is_kept(api: Api, smallest: Json, revision: Json) -> None:
    """Unknown fields and values: an older CRD must not prune or refuse what a newer one stored."""
    assert api.apply(smallest).ok
    newer = STATUS.wire() | {"claim": {"release": "9.0"}}
    newer["history"] = [{"revision": "r", "digest": "d", "outcome": "Distilled", "reason": "R", "at": NOW, "by": "x"}]
    answer = api.apply(status_of(smallest, **newer), OPERATOR, subresource="status")
    assert answer.ok, answer.message
    assert (answer.body["status"]["claim"], answer.body["status"]["history"]) == (
        {"release": "9.0"},
        newer["history"],
    )
    revision["spec"] |= {"requires": ["sparse"], "sparse": {"count": 4}}
    assert api.apply(revision, OPERATOR).body["spec"]["sparse"] == {"count": 4}
    evidence = {
        "phase": "Distilling",
        "rejected": {"stage": "Shadow", "reason": "R", "message": "", "at": NOW, "pairs": 7},
    }
    answer = api.apply(status_of(revision, **evidence), OPERATOR, subresource="status")
    assert answer.ok, answer.message
    assert answer.body["status"] == evidence
    assert RevisionStatus.read(answer.body["status"]).wire().items() >= evidence.items()


def test_kubectl_shows_both_kinds_on_one_line_each(control_plane: ControlPlane, smallest: Json, revision: Json) -> None:
    api = control_plane.api
    assert api.apply(smallest).ok
    assert api.apply(status_of(smallest, **STATUS.wire()), OPERATOR, subresource="status").ok
    shown = control_plane.kubectl("get", "vix", smallest["metadata"]["name"], "--no-headers").stdout.split()
    assert shown[1:-1] == ["Ready", "products-1a2b3c", "0.962", "2/2", "True", "Promoted"]
    revision["metadata"]["name"] += "-revision"
    assert api.apply(revision, OPERATOR).ok
    evidence = RevisionStatus(phase="Stable", recall="0.962", p95="1.2ms", size="74Mi").wire()
    assert api.apply(status_of(revision, **evidence), OPERATOR, subresource="status").ok
    shown = control_plane.kubectl("get", "vixr", revision["metadata"]["name"], "--no-headers").stdout.split()
    assert shown[1:-1] == ["products", "1a2b3c", "Stable", "0.962", "1.2ms", "74Mi"]
