"""A cross-encoder: which edit makes a revision, and what its pods are told and given."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import DATA, NOW, SETTINGS, a_revision, actions, index, recorded, report, run, seen, spec

from vectorindex_operator.api.v1alpha1 import FEATURES, RERANKER, S3, Live, RevisionSpec, Serving, VectorIndexSpec
from vectorindex_operator.core import gate, identity, recipe
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartBuild, StartResolve, StartValidation
from vectorindex_operator.manifests import jobs, revisions, searchers, sizing
from vectorindex_searcher.contract import (
    RERANKER_ENV_PREFIX,
    EncoderProof,
    Gain,
    QueryColumns,
    RerankProof,
    ServeTask,
    ValidateTask,
)

STORE = {"bucket": "models", "prefix": "cross/", "secretRef": {"name": "models"}}
FOLDER = {"s3": STORE, "sha256": "cd" * 32}
WORDS: dict[str, Any] = {
    "source": {"columns": {"metadata": ["text", "title"]}},
    "embedding": {
        "model": "minilm",
        "encoder": {"onnx": {"s3": {"bucket": "models"}, "sha256": "ab" * 32}, "textColumn": "text"},
    },
}
PLAIN = spec(**WORDS)


def reranked(**changes: Any) -> VectorIndexSpec:
    return spec(**WORDS, searcher={"rerank": {"onnx": FOLDER} | changes})


def test_it_is_no_part_of_the_artifact_nor_of_a_measurement_and_part_of_what_serves() -> None:
    of = reranked()
    assert identity.digest(of, DATA) == identity.digest(PLAIN, DATA)
    assert identity.source_hash(of) == identity.source_hash(PLAIN)
    assert identity.gate_hash(of) == identity.gate_hash(PLAIN)
    assert Serving.of(of) != Serving.of(PLAIN)
    assert "reranker" not in Serving.of(PLAIN).wire(), "or an upgrade would rename revisions"
    assert "rerank" not in Live.of(of).searcher.wire(), "it is of a revision"
    assert identity.live_hash(Live.of(PLAIN)) == identity.live_hash(
        Live.of(PLAIN).model_copy(update={"reranker": None})
    )


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({"onnx": FOLDER | {"sha256": "ef" * 32}}, True),
        ({"textColumn": "title"}, True),
        ({"candidates": 50}, True),
        ({"budget": "200ms"}, True),
        ({"onnx": FOLDER | {"s3": STORE | {"prefix": "other/"}}}, True),
        ({"onnx": FOLDER | {"s3": STORE | {"secretRef": {"name": "other"}}}}, False),
        ({"onnx": FOLDER | {"s3": STORE | {"endpoint": "https://minio"}}}, False),
    ],
)
def test_what_an_edit_of_it_does(changes: dict[str, Any], serves: bool) -> None:
    assert (Serving.of(reranked()) != Serving.of(reranked(**changes))) is serves


def test_it_makes_a_revision_of_the_same_artifact_and_builds_nothing() -> None:
    stable = a_revision(PLAIN, "Stable")
    plan = run(seen(reranked(), stable))
    (made,) = actions(plan, CreateRevision)
    assert made.digest == stable.spec.digest
    assert not actions(plan, StartBuild)
    assert not actions(plan, StartResolve)
    assert plan.status is not None
    (said,) = [one for one in plan.status.conditions if one.type == "UpToDate"]
    assert "searcher.rerank: with the next revision" in said.message


def test_releases_of_before_leave_such_a_revision_alone() -> None:
    made = CreateRevision("docs-1", "d1", DATA, Serving.of(reranked()))
    frozen = revisions.revision(made, index(reranked()), reranked(), SETTINGS)["spec"]
    assert RERANKER in frozen["requires"]
    assert RERANKER in FEATURES
    assert frozen["rerankerStore"]["prefix"] == "cross/"


def ensured(of: VectorIndexSpec) -> EnsureSearchers:
    (action,) = actions(run(seen(of, a_revision(of, "Stable"))), EnsureSearchers)
    return action


def told(of: VectorIndexSpec) -> ServeTask:
    return searchers._task(ensured(of), index(of), a_revision(of, "Stable").spec, shard=None)


def test_pods_are_told_what_was_frozen() -> None:
    rerank = told(reranked(textColumn="title", candidates=30, budget="120ms")).rerank
    assert rerank is not None
    assert (rerank.text_column, rerank.candidates, rerank.budget_seconds) == ("title", 30, 0.12)
    assert rerank.onnx.sha256 == "cd" * 32
    assert rerank.onnx.location.s3 is not None
    assert rerank.onnx.location.s3.prefix == "cross/"
    assert told(PLAIN).rerank is None
    assert "rerank" not in json.loads(told(reranked()).task_text(first_release=True))


def test_how_it_is_reached_is_what_the_spec_says_now() -> None:
    frozen = a_revision(reranked(), "Stable").spec
    new = {"bucket": "models", "endpoint": "https://minio", "secretRef": {"name": "new"}}
    live = Live.of(reranked(onnx=FOLDER | {"s3": new}))
    place = recipe.reranker_place(frozen, live)
    assert place is not None
    assert isinstance(place, S3)
    assert (place.prefix, place.endpoint) == ("cross/", "https://minio"), "where it is was frozen"
    assert recipe.reranker_secret(frozen, live) == "new"
    assert recipe.reranker_secret(frozen, Live.of(PLAIN)) == "models", "as it was reached when it was made"
    assert recipe.reranker_place(a_revision(PLAIN, "Stable").spec, live) is None


def test_pods_get_its_secret_memory_and_disk() -> None:
    def secrets(pod: dict[str, Any]) -> list[str]:
        sources = pod["containers"][0]["envFrom"]
        return [one["secretRef"]["name"] for one in sources if one["prefix"] == RERANKER_ENV_PREFIX]

    for of, wanted in ((reranked(), ["models"]), (PLAIN, [])):
        assert secrets(searchers.pod_template(of, index(of), "docs-1", SETTINGS)["spec"]) == wanted
        assert secrets(searchers._reached_by(a_revision(of, "Stable").spec, Live.of(of), tls=True)) == wanted


@pytest.mark.parametrize(("told", "counted"), [(None, recipe.UNTOLD_RERANKER), (600 << 20, 600 << 20)])
def test_pods_get_memory_and_disk_for_what_the_gate_saw_of_it(told: int | None, counted: int) -> None:
    of = labelled()
    found = None if told is None else proof((0.1, 0.2)).model_copy(update={"bytes": told})
    view = a_revision(of, "Stable", report=report(of, rerank=found))
    (action,) = actions(run(seen(of, view)), EnsureSearchers)
    assert action.reranker_bytes == counted
    assert ensured(PLAIN).reranker_bytes == 0
    before, after = (sizing.Need.of(one, view.spec) for one in (ensured(PLAIN), action))
    assert after.held - before.held == 2 * counted + sizing.ENCODER_BYTES
    assert after.worker - before.worker == sizing.ENCODER_BYTES
    assert searchers._disk_bytes(action) == searchers._disk_bytes(ensured(PLAIN)) + counted  # type: ignore[operator]


PLACES: dict[str, dict[str, Any]] = {
    "azure": {"account": "acme", "container": "models", "prefix": "cross/", "secretRef": {"name": "models"}},
    "gcs": {"bucket": "models", "prefix": "cross/", "secretRef": {"name": "models"}},
    "volume": {"claimName": "models", "path": "cross/"},
}


def elsewhere(kind: str, **changes: Any) -> dict[str, Any]:
    """The folder in another kind of store."""
    return {"sha256": FOLDER["sha256"], kind: PLACES[kind] | changes}


@pytest.mark.parametrize("kind", PLACES)
def test_it_is_fetched_from_any_kind_of_store(kind: str) -> None:
    of = labelled(onnx=elsewhere(kind))
    made = actions(run(seen(of)), CreateRevision)[0]
    raw = revisions.revision(made, index(of), of, SETTINGS)
    frozen, live = RevisionSpec.read(raw["spec"]), Live.read(Live.of(of).wire())
    assert f"store.{kind}" in frozen.requires
    told = recipe.rerank_task(frozen, live)
    assert told is not None
    assert told.onnx.location.place is not None
    assert told.onnx.location.place.kind == kind
    served = frozen.served_as().reranker
    assert served is not None
    assert served.bucket is None
    assert "models" in (served.place or "")
    assert recipe.reranker_secret(frozen, live) == (None if kind == "volume" else "models")
    view = a_revision(of, "Validating", report=None, gate=None)
    for pod in (
        jobs.validate(validating(of), index(of), view, of, SETTINGS)["spec"]["template"]["spec"],
        raw["spec"]["podTemplate"]["spec"],
        searchers._reached_by(frozen, live, tls=True),
    ):
        claims = [one for one in pod["volumes"] if one["name"] == "store-reranker"]
        mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "store-reranker"]
        assert bool(claims) == bool(mounts) == (kind == "volume")
        for claim, mount in zip(claims, mounts, strict=True):
            assert claim["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
            assert mount == {"name": "store-reranker", "mountPath": "/var/lib/vectorindex/reranker", "readOnly": True}


def test_both_models_may_be_on_one_claim() -> None:
    models = WORDS | {"embedding": {"encoder": {"onnx": elsewhere("volume", path="minilm/"), "textColumn": "text"}}}
    of = spec(**models, searcher={"rerank": {"onnx": elsewhere("volume")}})
    pod = searchers.pod_template(of, index(of), "docs-1", SETTINGS)["spec"]
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["/var/lib/vectorindex/reranker"] == mounts["/var/lib/vectorindex/encoder"] == "store-encoder"
    assert [one["name"] for one in pod["volumes"] if one["name"].startswith("store-")] == ["store-encoder"]


def test_another_place_of_it_is_another_revision_and_no_other_measurement() -> None:
    of = [labelled(), *(labelled(onnx=elsewhere(kind)) for kind in PLACES)]
    of.append(labelled(onnx=elsewhere("azure", container="others")))
    served = [Serving.of(one).reranker for one in of]
    assert len({str(one and one.wire()) for one in served}) == len(of)
    assert len({identity.gate_hash(one, reranker=how) for one, how in zip(of, served, strict=True)}) == 1
    assert "place" not in Serving.of(of[0]).wire()["reranker"], "with S3 no revision changes"  # type: ignore[operator]
    reached = labelled(onnx=elsewhere("azure", endpoint="https://acme", secretRef={"name": "b"}))
    assert Serving.of(reached) == Serving.of(of[1])


# ---------------------------------------------------------------- the gate

LABELS = {
    "queries": {"s3": {"bucket": "queries"}, "textColumn": "said"},
    "relevance": {"relevantColumn": "right", "maxDropVsStable": "5%"},
}
PROVEN = EncoderProof(rows=200, deviating=2, deviating_low=0.0018, cosine=0.99999, bytes=90 << 20)


def labelled(budget: str = "50ms", **rerank: Any) -> VectorIndexSpec:
    """An order that the gate measures."""
    return spec(**WORDS, gate=LABELS, searcher={"rerank": {"onnx": FOLDER, "budget": budget} | rerank})


def proof(mrr: tuple[float, float], ndcg: tuple[float, float] = (-0.1, 0.1), queries: int = 300) -> RerankProof:
    """Of differences between these two."""
    gains = [Gain(without=0.5, reranked=0.5 + (low + high) / 2, low=low, high=high) for low, high in (mrr, ndcg)]
    return RerankProof(queries=queries, mrr=gains[0], ndcg=gains[1], p95_ms=40, bytes=5 << 20)


def measured(of: VectorIndexSpec, found: RerankProof | None, **changes: Any) -> Any:
    overall = report(of).overall.model_copy(update={"relevance_mrr": changes.pop("relevance", 0.6)})
    return report(of, encoder=PROVEN, rerank=found, overall=overall, **changes)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (proof((0.01, 0.2)), "Pass", "RecallProven"),
        (proof((-0.2, 0.0)), "Pass", "RecallProven"),  # it gains nothing, and does no harm for sure
        (proof((-0.2, -0.001)), "Fail", "RerankHarms"),
        (proof((0.01, 0.2), (-0.1, -0.001)), "Fail", "RerankHarms"),
        (proof((-1, 1), (-1, 1), queries=0), "Inconclusive", "RerankNotMeasured"),
        (None, "Inconclusive", "RerankNotMeasured"),
    ],
)
def test_an_order_that_harms_does_not_pass(found: RerankProof | None, verdict: str, reason: str) -> None:
    of = labelled()
    said = gate.judge(measured(of, found), of, gate.Stable(), NOW)
    assert (said.verdict, said.reason) == (verdict, reason)
    if found is not None and found.queries:
        assert f"difference {found.mrr.low:+.3f} to {found.mrr.high:+.3f}" in said.message
        assert "300 labelled queries" in said.message


def test_where_nobody_measures_it_the_message_says_so() -> None:
    of = reranked()
    said = gate.judge(measured(of, None), of, gate.Stable(), NOW)
    assert said.verdict == "Pass"
    assert "what searcher.rerank gains is not measured (gate.queries.textColumn)" in said.message
    assert "rerank" not in gate.judge(measured(PLAIN, None), PLAIN, gate.Stable(), NOW).message


def test_what_the_gate_measures_is_part_of_its_hash() -> None:
    def hashed(of: VectorIndexSpec) -> str:
        return identity.gate_hash(of, reranker=Serving.of(of).reranker)

    of = labelled()
    assert hashed(reranked()) == hashed(PLAIN), "an upgrade measures nothing again"
    assert hashed(of) not in (hashed(reranked()), hashed(spec(**WORDS, gate=LABELS)))
    for other in ({"onnx": FOLDER | {"sha256": "ef" * 32}}, {"candidates": 50}, {"textColumn": "title"}):
        assert hashed(labelled(**other)) != hashed(of)
    assert hashed(labelled(budget="200ms")) == hashed(of), "no gate meets the budget"
    assert hashed(labelled(onnx=FOLDER | {"s3": STORE | {"prefix": "copy/"}})) == hashed(of)


def validating(of: VectorIndexSpec) -> StartValidation:
    view = a_revision(of, "Validating", report=None, gate=None)
    (start,) = actions(run(seen(of, view)), StartValidation)
    return start


def test_the_gate_is_told_what_reorders_and_gets_its_keys() -> None:
    of = labelled(textColumn="title", candidates=30)
    start = validating(of)
    assert start.task.gate_hash == identity.gate_hash(of, reranker=Serving.of(of).reranker)
    assert start.task.query_columns == QueryColumns(relevant="right", text="said")
    rerank = start.task.rerank
    assert rerank is not None
    assert (rerank.text_column, rerank.candidates, rerank.onnx.sha256) == ("title", 30, "cd" * 32)
    older = json.loads(start.task.task_text(first_release=True))
    assert ValidateTask.model_validate(older).rerank is None
    assert "text" not in older["queryColumns"]

    def secrets(of: VectorIndexSpec) -> list[str]:
        pod = jobs.validate(validating(of), index(of), a_revision(of, "Validating"), of, SETTINGS)["spec"]["template"]
        sources = pod["spec"]["containers"][0]["envFrom"]
        return [one["secretRef"]["name"] for one in sources if one["prefix"] == RERANKER_ENV_PREFIX]

    assert secrets(of) == ["models"]
    assert validating(reranked()).task.rerank is None, "without labelled queries in words there is nothing to measure"
    assert secrets(reranked()) == []


def test_a_revision_whose_order_harms_is_rejected() -> None:
    of = labelled()
    view = a_revision(of, "Validating", report=measured_for(of, proof((-0.3, -0.1))), gate=None)
    status = recorded(run(seen(of, view)), view)
    assert status.rejected is not None
    assert (status.phase, status.rejected.reason) == ("Rejected", "RerankHarms")


def measured_for(of: VectorIndexSpec, found: RerankProof, **changes: Any) -> Any:
    """With the hash that the revision asks for."""
    wanted = identity.gate_hash(of, reranker=Serving.of(of).reranker)
    return measured(of, found, **changes).model_copy(update={"gate_hash": wanted})


@pytest.mark.parametrize(("relevance", "phase"), [(0.58, "Validated"), (0.5, "Rejected")])
def test_another_order_is_compared_with_that_of_stable_by_the_same_queries(relevance: float, phase: str) -> None:
    """Each revision is measured in its own order: what users got, and what they would get."""
    before, after = labelled(), labelled(candidates=50)
    stable = a_revision(before, "Stable", report=measured_for(before, proof((0, 0.2))))
    found = measured_for(after, proof((0, 0.2)), relevance=relevance)
    view = a_revision(after, "Validating", report=found, gate=None)
    view = replace(view, name=identity.revision_name("docs", identity.serving_digest("d", Serving.of(after))))
    status = recorded(run(seen(after, stable, view, traffic=stable)), view)
    assert status.gate is not None
    assert (status.gate.reason == "RelevanceDropped") is (phase == "Rejected"), status.gate.message
