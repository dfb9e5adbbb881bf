"""An encoder of queries in words: which edit makes a revision, who is told what, and when the gate lets it pass."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    index,
    job,
    recorded,
    report,
    run,
    seen,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    ENCODER,
    FEATURES,
    S3,
    Live,
    Rejection,
    RevisionSpec,
    ServedEncoder,
    Serving,
    VectorIndexSpec,
)
from vectorindex_operator.core import gate, identity, recipe
from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import JobState, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    EnsureSearchers,
    StartBuild,
    StartOutcomes,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.manifests import jobs, revisions, searchers, sizing
from vectorindex_searcher.contract import ENCODER_ENV_PREFIX, EncoderProof, OutcomesResult, ServeTask, ValidateTask

SHA256 = "ab" * 32
STORE = {"bucket": "models", "prefix": "minilm/", "secretRef": {"name": "models"}}
FOLDER = {"s3": STORE, "sha256": SHA256}
WORDS: dict[str, Any] = {
    "source": {"columns": {"metadata": ["text"]}},
    "embedding": {"model": "minilm", "encoder": {"onnx": FOLDER, "textColumn": "text"}},
}


def onnx(**changes: Any) -> dict[str, Any]:
    return {"encoder": {"onnx": FOLDER | changes, "textColumn": "text"}}


def words(**embedding: Any) -> VectorIndexSpec:
    return spec(**WORDS | {"embedding": WORDS["embedding"] | embedding})


PLAIN = spec(source={"columns": {"metadata": ["text"]}}, embedding={"model": "minilm"})
PROVEN = EncoderProof(rows=200, deviating=2, deviating_low=0.0018, cosine=0.99999, bytes=90 << 20)


# ---------------------------------------------------------------- identity


def test_an_encoder_is_no_part_of_the_artifact_and_part_of_what_serves_it_and_is_proven() -> None:
    assert identity.digest(words(), DATA) == identity.digest(PLAIN, DATA)
    assert identity.source_hash(words()) == identity.source_hash(PLAIN), "nothing is listed anew for it"
    assert identity.build_hash(words()) == identity.build_hash(PLAIN)
    assert Serving.of(words()) != Serving.of(PLAIN)
    assert identity.gate_hash(words()) != identity.gate_hash(PLAIN)
    assert "encoder" not in Serving.of(PLAIN).wire(), "or an upgrade would rename revisions"


@pytest.mark.parametrize(
    ("embedding", "serves", "measures"),
    [
        (onnx(sha256="cd" * 32), True, True),
        ({"queryPrefix": "query: "}, True, True),
        ({"queryPrefix": ""}, True, True),
        ({"documentPrefix": "passage: "}, False, True),
        ({"encoder": {"onnx": FOLDER, "textColumn": "title"}}, False, True),
        (onnx(s3=STORE | {"prefix": "other/"}), True, False),
        (onnx(s3=STORE | {"secretRef": {"name": "other"}}), False, False),
        (onnx(s3=STORE | {"region": "other"}), False, False),
    ],
)
def test_what_an_edit_of_it_does(embedding: dict[str, Any], serves: bool, measures: bool) -> None:
    before, after = words(), words(**embedding)
    assert (Serving.of(before) != Serving.of(after)) is serves
    assert (identity.gate_hash(before) != identity.gate_hash(after)) is measures


def test_an_encoder_makes_a_revision_of_the_same_artifact_and_builds_nothing() -> None:
    stable = a_revision(PLAIN, "Stable")
    plan = run(seen(words(), stable))
    (made,) = actions(plan, CreateRevision)
    assert made.digest == stable.spec.digest
    assert not actions(plan, StartBuild)
    assert not actions(plan, StartResolve)


def test_releases_of_before_leave_such_a_revision_alone() -> None:
    def requires(of: VectorIndexSpec) -> list[str]:
        made = CreateRevision("docs-1", "d1", DATA, Serving.of(of))
        found: list[str] = revisions.revision(made, index(of), of, SETTINGS)["spec"]["requires"]
        return found

    assert requires(words()) == [ENCODER]
    assert ENCODER in FEATURES
    assert requires(PLAIN) == []


# ---------------------------------------------------------------- who is told what


def test_the_gate_is_told_all_and_pods_what_they_serve() -> None:
    of = words(queryPrefix="query: ", documentPrefix="passage: ")
    view = a_revision(of, "Validating", report=None, gate=None)
    (start,) = actions(run(seen(of, view)), StartValidation)
    task: ValidateTask = start.task
    assert task.encoder is not None
    assert task.encoder.wire() == {
        "onnx": {"location": {"s3": {"bucket": "models", "prefix": "minilm/", "endpoint": "", "region": ""}},
                 "sha256": SHA256},
        "textColumn": "text", "queryPrefix": "query: ", "documentPrefix": "passage: ",
    }  # fmt: skip
    told = recipe.encoder_task(view.spec, Live.of(of))
    assert told is not None
    assert (told.query_prefix, told.document_prefix, told.text_column) == ("query: ", None, "")
    assert told.onnx == task.encoder.onnx


# ---------------------------------------------------------------- rows that are texts


def texts(**embedding: Any) -> VectorIndexSpec:
    made = {"dimension": 384, "documentPrefix": "passage: "} | embedding
    of = words(**made).model_dump(mode="json", by_alias=True, exclude_none=True)
    of["source"]["columns"]["text"] = "text"
    return VectorIndexSpec.model_validate(of)


@pytest.mark.parametrize(
    ("embedding", "builds"),
    [
        (onnx(sha256="cd" * 32), True),
        ({"documentPrefix": "text: "}, True),
        ({"encoder": {"endpoint": {"url": "http://tei/v1"}, "textColumn": "text"}}, True),
        ({"queryPrefix": "query: "}, False),
        (onnx(s3=STORE | {"prefix": "other/"}), False),
    ],
)
def test_where_rows_are_texts_whatever_makes_their_vectors_is_part_of_the_artifact(
    embedding: dict[str, Any], builds: bool
) -> None:
    assert (identity.digest(texts(), DATA) != identity.digest(texts(**embedding), DATA)) is builds
    assert identity.digest(texts(), DATA) != identity.digest(words(dimension=384), DATA)


def test_the_build_of_texts_is_told_what_encodes_them_as_it_was_frozen() -> None:
    of = texts(queryPrefix="query: ")
    made = CreateRevision("docs-1", "d1", DATA, Serving.of(of))
    frozen = RevisionSpec.read(revisions.revision(made, index(of), of, SETTINGS)["spec"])
    assert frozen.document_prefix == "passage: "
    view = a_revision(of, "Pending", build=None)
    view = replace(view, spec=view.spec.model_copy(update={"document_prefix": "passage: ", "image": "older"}))
    (start,) = actions(run(seen(of, view)), StartBuild)
    assert start.task.encoder is not None
    assert start.task.encoder.document_prefix == "passage: "
    assert start.task.encoder.query_prefix is None
    (one,) = jobs.build(start, index(of), view, of, SETTINGS)["spec"]["template"]["spec"]["containers"]
    assert {"prefix": ENCODER_ENV_PREFIX, "secretRef": {"name": "models"}} in one["envFrom"]
    task = json.loads(one["env"][0]["value"])
    assert (task["columns"]["text"], task["encoder"]["documentPrefix"]) == ("text", "passage: "), "also an older image"


def test_the_build_of_vectors_has_no_key_of_the_encoder() -> None:
    of = words()
    view = a_revision(of, "Pending", build=None)
    (start,) = actions(run(seen(of, view)), StartBuild)
    assert start.task.encoder is None
    (one,) = jobs.build(start, index(of), view, of, SETTINGS)["spec"]["template"]["spec"]["containers"]
    assert ENCODER_ENV_PREFIX not in [source.get("prefix") for source in one["envFrom"]]


TEI = {"url": "http://tei.ml.svc/v1/embeddings", "model": "minilm"}
ELSEWHERE = "http://other/v1/embeddings"


def asking(**changes: Any) -> VectorIndexSpec:
    return words(encoder={"endpoint": TEI | changes, "textColumn": "text"})


def test_an_endpoint_is_served_by_its_url_and_reached_by_todays_secret() -> None:
    of = asking(tokenSecretRef={"name": "tei"})
    frozen = a_revision(of, "Stable").spec
    told = recipe.encoder_task(frozen, Live.of(of))
    assert told is not None
    assert told.wire() == {"endpoint": TEI, "textColumn": ""}
    assert recipe.encoder_secret(frozen, Live.of(of)) == "tei"
    assert recipe.encoder_secret(frozen, Live.of(asking(tokenSecretRef={"name": "new"}))) == "new"
    assert recipe.encoder_secret(frozen, Live.of(PLAIN)) == "tei", "as it was reached when it was made"
    assert recipe.encoder_secret(frozen, Live.of(words())) == "tei", "the Secret of a store is another one"
    assert Serving.of(of) == Serving.of(asking())
    assert identity.gate_hash(of) == identity.gate_hash(asking())
    for other in (asking(model="e5"), asking(url=ELSEWHERE), words()):
        assert Serving.of(of) != Serving.of(other)
        assert identity.gate_hash(of) != identity.gate_hash(other)


@pytest.mark.parametrize(
    ("then", "now", "name"),
    [
        ({"tokenSecretRef": {"name": "tei"}}, {"tokenSecretRef": {"name": "new"}}, "new"),
        ({"tokenSecretRef": {"name": "tei"}}, {"tokenSecretRef": {"name": "new"}, "model": "e5"}, "new"),
        ({"tokenSecretRef": {"name": "tei"}}, {}, None),
        ({}, {"tokenSecretRef": {"name": "new"}}, "new"),
        ({"tokenSecretRef": {"name": "tei"}}, {"tokenSecretRef": {"name": "new"}, "url": ELSEWHERE}, "tei"),
        ({"tokenSecretRef": {"name": "tei"}}, {"url": ELSEWHERE}, "tei"),
        ({}, {"tokenSecretRef": {"name": "new"}, "url": ELSEWHERE}, None),
    ],
)
def test_a_token_goes_to_the_url_that_it_stands_beside(
    then: dict[str, Any], now: dict[str, Any], name: str | None
) -> None:
    """Loaded searchers and the gate of a revision whose URL the spec has left, or comes back to."""
    view, today = a_revision(asking(**then), "Stable"), asking(**now)
    (action,) = actions(run(seen(today, view)), EnsureSearchers)
    pod = searchers.deployment(action, index(today), view, InternalKeys())["spec"]["template"]["spec"]
    assert encoder_secrets(pod) == ([name] if name else [])
    assert recipe.encoder_secret(view.spec, Live.of(today)) == name


def test_how_an_endpoint_is_reached_changes_nothing_where_there_is_none() -> None:
    for of in (PLAIN, words()):
        assert "encoderUrl" not in Live.of(of).wire(), "or an upgrade would write all Deployments anew"
    assert "encoderUrl" in Live.of(asking()).wire(), "that it has no Secret is known as well"


def test_the_secret_of_a_store_stays_with_its_bucket() -> None:
    frozen = a_revision(words(), "Stable").spec
    elsewhere = {"bucket": "other", "endpoint": "https://minio", "secretRef": {"name": "new"}}
    live = Live.of(words(**onnx(s3=elsewhere)))
    assert recipe.encoder_place(frozen, live) == frozen.encoder_store
    assert recipe.encoder_secret(frozen, live) == "models"
    assert recipe.encoder_secret(frozen, Live.of(words(**onnx(s3={"bucket": "models"})))) is None


def encoder_secrets(pod: dict[str, Any]) -> list[str]:
    sources = pod["containers"][0]["envFrom"]
    return [one["secretRef"]["name"] for one in sources if one["prefix"] == ENCODER_ENV_PREFIX]


@pytest.mark.parametrize(
    ("of", "name"), [(words(), "models"), (asking(tokenSecretRef={"name": "tei"}), "tei"), (asking(), None)]
)
def test_pods_and_the_gate_get_the_secret_and_no_other_names_it(of: VectorIndexSpec, name: str | None) -> None:
    view = a_revision(of, "Validating", report=None, gate=None)
    action = actions(run(seen(of, view)), StartValidation)[0]
    pods = [jobs.validate(action, index(of), view, of, SETTINGS)["spec"]["template"]["spec"]]
    pods.append(searchers.pod_template(of, index(of), "docs-1", SETTINGS)["spec"])
    for pod in pods:
        assert encoder_secrets(pod) == ([name] if name else [])


def test_how_it_is_reached_is_what_the_spec_says_now() -> None:
    frozen = a_revision(words(), "Stable").spec
    elsewhere = {"bucket": "models", "endpoint": "https://minio", "secretRef": {"name": "new"}}
    live = Live.of(words(**onnx(s3=elsewhere)))
    place = recipe.encoder_place(frozen, live)
    assert place is not None
    assert isinstance(place, S3)
    assert (place.prefix, place.endpoint) == ("minilm/", "https://minio"), "where it is was frozen"
    assert place.secret == "new"
    gone = recipe.encoder_place(frozen, Live.of(PLAIN))
    assert gone is not None
    assert gone.secret == "models", "as it was reached when it was made"
    assert recipe.encoder_place(a_revision(PLAIN, "Stable").spec, live) is None


PLACES: dict[str, dict[str, Any]] = {
    "azure": {"account": "acme", "container": "models", "prefix": "minilm/", "secretRef": {"name": "models"}},
    "gcs": {"bucket": "models", "prefix": "minilm/", "secretRef": {"name": "models"}},
    "volume": {"claimName": "models", "path": "minilm/"},
}


@pytest.mark.parametrize("kind", PLACES)
def test_an_encoder_is_fetched_from_any_kind_of_store(kind: str) -> None:
    of = words(**onnx(s3=None, **{kind: PLACES[kind]}))
    made = actions(run(seen(of)), CreateRevision)[0]
    raw = revisions.revision(made, index(of), of, SETTINGS)
    frozen, live = RevisionSpec.read(raw["spec"]), Live.read(Live.of(of).wire())
    assert frozen.requires == (ENCODER, f"store.{kind}")
    task = recipe.encoder_task(frozen, live)
    assert task is not None
    assert task.onnx is not None
    assert task.onnx.location.place is not None
    assert task.onnx.location.place.kind == kind
    assert "models" in (frozen.served_as().encoder or ServedEncoder()).wire()["place"]  # type: ignore[operator]
    assert recipe.encoder_secret(frozen, live) == (None if kind == "volume" else "models")
    view = a_revision(of, "Validating", report=None, gate=None)
    action = actions(run(seen(of, view)), StartValidation)[0]
    for pod in (
        jobs.validate(action, index(of), view, of, SETTINGS)["spec"]["template"]["spec"],
        raw["spec"]["podTemplate"]["spec"],
    ):
        claims = [one for one in pod["volumes"] if one["name"] == "store-encoder"]
        mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "store-encoder"]
        assert bool(claims) == bool(mounts) == (kind == "volume")
        for claim, mount in zip(claims, mounts, strict=True):
            assert claim["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
            assert mount == {"name": "store-encoder", "mountPath": "/var/lib/vectorindex/encoder", "readOnly": True}


def test_another_place_of_the_encoder_is_another_revision() -> None:
    of = [words(), *(words(**onnx(s3=None, **{kind: place})) for kind, place in PLACES.items())]
    of.append(words(**onnx(s3=None, azure=PLACES["azure"] | {"container": "others"})))
    assert len({identity.models_id(Serving.of(one)) for one in of}) == len(of)
    reached = words(**onnx(s3=None, azure=PLACES["azure"] | {"endpoint": "https://acme", "secretRef": {"name": "b"}}))
    assert reached.embedding.served() == of[1].embedding.served()


def test_a_searcher_of_before_is_told_nothing_of_it() -> None:
    task = ServeTask.model_validate(
        {
            "identity": {"name": "n"},
            "revision": "r",
            "digest": "d",
            "manifestSha256": "",
            "artifacts": {"folder": "/a"},
            "encoder": {"onnx": {"location": {"folder": "/m"}, "sha256": SHA256}},
        }
    )
    assert "encoder" in json.loads(task.task_text(first_release=False))
    assert "encoder" not in json.loads(task.task_text(first_release=True))


def test_pods_get_memory_and_disk_for_it() -> None:
    def ensured(of: VectorIndexSpec, **status: Any) -> EnsureSearchers:
        (action,) = actions(run(seen(of, a_revision(of, "Stable", **status))), EnsureSearchers)
        return action

    plain = ensured(PLAIN)
    encoding = ensured(words(), report=report(words(), encoder=PROVEN))
    assert (plain.encoder_bytes, encoding.encoder_bytes) == (0, 90 << 20)
    frozen = a_revision(words(), "Stable").spec
    before, after = (sizing.Need.of(one, frozen) for one in (plain, encoding))
    assert after.held - before.held == 2 * (90 << 20) + sizing.ENCODER_BYTES
    assert after.worker - before.worker == sizing.ENCODER_BYTES


def test_an_edit_that_waits_is_told() -> None:
    plan = run(seen(words(), a_revision(PLAIN, "Stable")))
    assert plan.status is not None
    (said,) = [one for one in plan.status.conditions if one.type == "UpToDate"]
    assert "embedding.encoder: with the next revision" in said.message


# ---------------------------------------------------------------- the verdict


def judged(proof: EncoderProof | None, of: VectorIndexSpec | None = None) -> tuple[str, str, str]:
    asked = words() if of is None else of
    verdict = gate.judge(report(asked, encoder=proof), asked, gate.Stable(), NOW)
    return verdict.verdict, verdict.reason, verdict.message


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "Pass", "RecallProven"),
        ({"deviating": 15, "deviating_low": 0.0499}, "Pass", "RecallProven"),
        ({"deviating": 16, "deviating_low": 0.0508}, "Fail", "EncoderDeviates"),
        ({"rows": 19, "deviating": 0, "deviating_low": 0.0}, "Inconclusive", "EncoderNotCompared"),
        ({"rows": 19, "deviating": 19, "deviating_low": 0.85}, "Fail", "EncoderDeviates"),
        ({"rows": 20, "deviating": 0, "deviating_low": 0.0}, "Pass", "RecallProven"),
        ({"norm_ratio": 1.0099}, "Pass", "RecallProven"),
        ({"norm_ratio": 1.0101}, "Fail", "EncoderNormDeviates"),
        ({"norm_ratio": 0.98}, "Fail", "EncoderNormDeviates"),
    ],
)
def test_the_gate_lets_only_the_model_of_the_index_pass(changes: dict[str, Any], verdict: str, reason: str) -> None:
    assert judged(PROVEN.model_copy(update=changes))[:2] == (verdict, reason)


def test_nobody_compared_is_no_pass() -> None:
    verdict, reason, message = judged(None)
    assert (verdict, reason) == ("Inconclusive", "EncoderNotCompared")
    assert "'text'" in message


def test_a_pass_has_the_figures_too() -> None:
    assert judged(PROVEN)[2].endswith(
        "; the encoder makes the vectors of the index: median cosine 1.0000, 2 of 200 rows below 0.99"
    )
    assert "encoder" not in gate.judge(report(PLAIN), PLAIN, gate.Stable(), NOW).message


def test_the_message_has_the_figures() -> None:
    _, _, message = judged(PROVEN.model_copy(update={"deviating": 150, "deviating_low": 0.69, "cosine": 0.31}))
    for figure in ("median cosine 0.3100", "150 of 200 rows below 0.99", "at least 69.0%", "5% may", "documentPrefix"):
        assert figure in message
    of = words(metric="InnerProduct")
    _, _, message = judged(PROVEN.model_copy(update={"norm_ratio": 2.5}), of)
    assert "2.500 times as long" in message
    assert "InnerProduct" in message


def test_an_index_without_an_encoder_is_not_judged_by_one() -> None:
    assert judged(None, PLAIN)[0] == "Pass"


def test_a_rejected_encoder_is_tried_again_with_another_and_not_by_itself() -> None:
    bad = PROVEN.model_copy(update={"deviating": 150, "deviating_low": 0.69})
    of = words()
    view = a_revision(of, "Validating", report=report(of, encoder=bad), gate=None)
    plan = run(seen(of, view))
    status = recorded(plan, view)
    assert status.phase == "Rejected"
    assert status.rejected is not None
    assert status.rejected.reason == "EncoderDeviates"


def test_what_was_frozen_is_read_back() -> None:
    frozen = a_revision(words(queryPrefix="q: "), "Stable").spec
    again = RevisionSpec.read(frozen.wire())
    assert again == frozen
    assert again.served_as().encoder == frozen.served_as().encoder


# ---------------------------------------------------------------- beside the artifacts


def test_what_was_judged_with_another_encoder_is_not_taken_over_as_it_was() -> None:
    """A rejection of another encoder is none of this one, and what served another is proven again."""
    keeps = replace(SETTINGS, outcomes=True)
    why = Rejection(stage="Gate", reason="EncoderDeviates", message="m", at=to_text(NOW))
    bad = a_revision(words(), "Rejected", data=NEW_DATA, rejected=why)
    stable = a_revision(words(), "Stable")
    plan = decide(seen(words(), stable, bad, traffic=stable), keeps, NOW)
    (start,) = actions(plan, StartOutcomes)
    written = {one.outcome: one for one in start.task.write}
    assert {one.encoder for one in written.values()} == {identity.models_id(Serving.of(words()))}

    def begun(of: VectorIndexSpec) -> dict[str, str]:
        empty = seen(of)
        empty = replace(empty, index=index(of), jobs=())
        (asked,) = actions(decide(empty, keeps, NOW), StartOutcomes)
        done = replace(
            job(Task.OUTCOMES, JobState.SUCCEEDED, key=asked.key), result=OutcomesResult(found=start.task.write)
        )
        made = actions(decide(replace(empty, jobs=(done,)), keeps, NOW), CreateRevision)
        return {one.name: one.restored.phase for one in made if one.restored is not None}

    assert begun(words()) == {stable.name: "Stable", bad.name: "Rejected"}
    assert begun(words(queryPrefix="query: ")) == {stable.name: "Validating"}
    assert begun(PLAIN) == {stable.name: "Validating"}
