"""A cross-encoder: which edit makes a revision, and what its pods are told and given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from observations import DATA, SETTINGS, a_revision, actions, index, run, seen, spec

from vectorindex_operator.api.v1alpha1 import FEATURES, RERANKER, Live, Serving, VectorIndexSpec
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartBuild, StartResolve
from vectorindex_operator.manifests import revisions, searchers, sizing
from vectorindex_searcher.contract import RERANKER_ENV_PREFIX, ServeTask

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
    return searchers._task(ensured(of), index(of), a_revision(of, "Stable").spec)


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
        assert secrets(searchers._reached_by(a_revision(of, "Stable").spec, Live.of(of))) == wanted
    action = ensured(reranked())
    before, after = (sizing.Need.of(action, a_revision(of, "Stable").spec) for of in (PLAIN, reranked()))
    assert after.held - before.held == 2 * sizing.RERANKER_FILES + sizing.ENCODER_BYTES
    assert after.worker - before.worker == sizing.ENCODER_BYTES
