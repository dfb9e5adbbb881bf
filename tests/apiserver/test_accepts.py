"""What users may write, and what the API server makes of it: the defaults of the models, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from apiserver.manifests import FULL_SPEC, changed
from apiserver.shown import PAGES, parts, whole
from control_plane import Api, ControlPlane, Json, path_of
from layers import CHECKOUT

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec

SHOWN = [path for path in PAGES if whole(path)]
IN_PARTS = [(path, part) for path in PAGES for part in parts(path)]


def test_the_smallest_manifest_gets_the_defaults_of_the_models(api: Api, smallest: Json) -> None:
    answer = api.apply(smallest)
    assert answer.ok, answer.message
    assert answer.body["spec"] == VectorIndexSpec.model_validate(smallest["spec"]).wire()


def test_the_full_manifest_is_kept_as_it_is(api: Api, smallest: Json) -> None:
    manifest = smallest | {"spec": FULL_SPEC}
    answer = api.apply(manifest)
    assert answer.ok, answer.message
    stored = api.get(path_of(manifest)).body["spec"]
    assert stored == VectorIndexSpec.model_validate(FULL_SPEC).wire()
    assert VectorIndexSpec.model_validate(stored) == VectorIndexSpec.model_validate(FULL_SPEC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("build.resources", {"limits": {"memory": "8Gi"}}),
        ("artifacts", {"s3": {"bucket": "indexes"}, "deletionPolicy": "Delete"}),
        ("searcher.resources", {"requests": {"memory": "1.5Gi"}}),
        ("searcher.params", {"allow": []}),
        ("searcher.params", {"max": {"efSearch": 200, "k_factor": 1}}),
        ("guardrails.rules", []),
        ("guardrails", {"steadyState": "Observe"}),
        ("gate", {"recall": {"min": 0.9}}),
        ("gate", {"queries": {"s3": {"bucket": "queries"}}, "relevance": {}}),
        ("gate", {"queries": {"live": {}}}),
        ("rollout", {"soak": {"duration": "0s"}}),
        ("rollout", {"keepPrior": "24h"}),
        ("rollout", {"keepPrior": "1d"}),
        ("rollout", {"shadow": {"maxPerSecond": 0}}),
        ("rollout", {"shadow": {"afterSwitch": True}}),
        ("rollout", {"route": {"parentRefs": [{"name": "public"}]}}),
        (
            "rollout",
            {
                "strategy": "Canary",
                "steps": [{"weight": 10, "duration": "5m"}, {"weight": 50, "pause": True}],
                "route": {
                    "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
                    "hostnames": ["search.example.com", "*.example.org"],
                },
            },
        ),
        ("rollout", {"shadow": {"duration": "10m", "maxDuration": "50m"}}),
        ("build.pod.tolerations", [{"key": "gpu"}]),
        ("source.poll", "0"),
        ("source.schedule", {"cron": "5,35 0-23/2 1,15 jan-jun 0-7"}),
        ("source.schedule", {"cron": "0 3 * * *", "timeZone": "Pacific/Auckland"}),
        ("source.s3", {"bucket": "public", "anonymous": True, "endpoint": "https://ref.example.co/storage/v1/s3/"}),
        ("source", {"volume": {"claimName": "vectors", "path": "today/"}, "tombstones": {"prefix": "today/gone/"}}),
        ("source", {"s3": {"bucket": "vectors", "prefix": "a"}, "fresh": {"prefix": "a-fresh/"}}),
        (
            "source",
            {
                "gcs": {"bucket": "vectors", "prefix": "a/"},
                "poll": "15s",
                "schedule": {"cron": "0 3 * * *"},
                "fresh": {"prefix": "b/"},
                "tombstones": {"prefix": "c/"},
            },
        ),
        ("source", {"azure": {"account": "acme", "container": "vectors", "prefix": "docs/", "anonymous": True}}),
        ("source", {"gcs": {"bucket": "vectors", "prefix": "docs/", "anonymous": True}}),
        ("artifacts", {"gcs": {"bucket": "indexes.example.com", "secretRef": {"name": "gcs"}}}),
        ("artifacts", {"azure": {"account": "acme", "container": "indexes", "secretRef": {"name": "azure"}}}),
        ("artifacts", {"volume": {"claimName": "indexes"}}),
        ("gate.queries", {"volume": {"claimName": "vectors", "path": "asked"}, "segmentColumn": "of"}),
        ("index", {"factory": "Flat"}),
        ("index", {"factory": "HNSW32", "effort": "High"}),
        ("guardrails.rules", [{"name": "scores", "metric": "TopScore", "min": "0.45"}]),
    ],
)
def test_a_part_left_out_gets_the_same_defaults_from_both(api: Api, smallest: Json, field: str, value: object) -> None:
    manifest = changed(smallest, f"spec.{field}", value)
    answer = api.apply(manifest)
    assert answer.ok, answer.message
    assert answer.body["spec"] == VectorIndexSpec.model_validate(manifest["spec"]).wire()


def test_searchers_may_mount_the_claim_of_a_source_that_they_do_not_read(api: Api, smallest: Json) -> None:
    manifest = changed(smallest, "spec.source", {"volume": {"claimName": "shared", "path": "vectors"}})
    volumes = [{"name": "a", "persistentVolumeClaim": {"claimName": "shared"}}]
    answer = api.apply(changed(manifest, "spec.searcher", {"pod": {"volumes": volumes}}))
    assert answer.ok, answer.message


def test_rows_may_be_without_vectors_where_an_imported_index_has_them(api: Api, smallest: Json) -> None:
    found = {"index": "exports/docs.faiss", "sha256": "0" * 64}
    manifest = changed(smallest, "spec.index", {"import": found})
    manifest = changed(manifest, "spec.gate", {"queries": {"s3": {"bucket": "queries"}}})
    manifest = changed(manifest, "spec.source.columns", {"vector": ""})
    assert not api.apply(manifest).ok, "nobody knows their dimension"
    answer = api.apply(changed(manifest, "spec.embedding", {"dimension": 768}))
    assert answer.ok, answer.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("build.resources", {"requests": {"cpu": 2, "memory": 2147483648}, "limits": {"cpu": 2.5}}),
        ("searcher.resources", {"requests": {"cpu": 0.5}}),
        ("source.poll", 0),
        ("source", {"s3": {"bucket": "embeddings"}, "poll": 0, "schedule": {"cron": "0 3 * * *"}}),
        ("source.minInterval", 0),
        ("rollout", {"soak": {"duration": 0}}),
        ("rollout", {"keepPrior": 0}),
        ("gate", {"maxCountDrop": 0, "maxCountRise": 0}),
        ("index", {"objective": {"memoryLimit": 4294967296}}),
        ("guardrails.rules", [{"name": "clicks", "metric": "ClickDepth", "max": 3.5, "mode": "Observe"}]),
        ("guardrails.rules", [{"name": "refused", "metric": "RefusalRate", "max": "5%", "mode": "Observe"}]),
        (
            "guardrails.rules",
            [{"name": "r", "metric": "RefusalRate", "maxRiseVsStable": "50%", "mode": "Observe"}],
        ),
        ("guardrails.rules", [{"name": "lost", "metric": "FiltersLost", "max": "0.5%"}]),
        ("guardrails.rules", [{"name": "order", "metric": "RerankedShare", "min": "90%"}]),
        ("guardrails.rules", [{"name": "order", "metric": "RerankedShare", "maxDropVsStable": "5%"}]),
        ("guardrails.rules", [{"name": "e", "metric": "FilteredZeroResultRate", "max": "5%", "mode": "Observe"}]),
        (
            "guardrails.rules",
            [{"name": "e", "metric": "FilteredZeroResultRate", "maxRiseVsStable": "50%", "mode": "Observe"}],
        ),
        ("guardrails.rules", [{"name": "clicks", "metric": "ClickDepth", "max": 3, "mode": "Observe"}]),
        ("guardrails.rules", [{"name": "o", "metric": "PromQL", "query": "sum(rate(o[{{window}}]))", "min": -2.5}]),
        (
            "guardrails.rules",
            [{"name": "o", "metric": "PromQL", "query": "o{r='{{revision}}'}", "maxRiseVsStable": "5%"}],
        ),
        ("guardrails.rules", [{"name": "scores", "metric": "TopScore", "min": -0.45, "warmUp": 0}]),
    ],
)
def test_a_number_without_quotes_is_kept_and_read(api: Api, smallest: Json, field: str, value: object) -> None:
    manifest = changed(smallest, f"spec.{field}", value)
    first = api.apply(manifest)
    assert first.ok, first.message
    again = api.apply(manifest)
    assert again.ok, again.message
    assert again.body["metadata"]["generation"] == 1, "the same manifest is no change"
    kept = again.body["spec"]
    assert VectorIndexSpec.model_validate(kept) == VectorIndexSpec.model_validate(manifest["spec"])
    for key in field.split("."):
        kept = kept[key]
    assert kept == value or isinstance(value, dict | list), "what a person wrote is what kubectl shows"


def test_null_stands_for_the_default(api: Api, smallest: Json) -> None:
    answer = api.apply(changed(smallest, "spec.gate", {"k": None, "recall": None}))
    assert answer.ok, answer.message
    assert answer.body["spec"] == VectorIndexSpec.model_validate(smallest["spec"]).wire()


@pytest.mark.parametrize("length", [1, 40])
def test_names_up_to_the_limit(api: Api, smallest: Json, length: int) -> None:
    answer = api.apply(changed(smallest, "metadata.name", "x" * length), dryRun="All")
    assert answer.ok, answer.message


def test_recall_above_99_percent_for_exact_search(api: Api, smallest: Json) -> None:
    manifest = changed(changed(smallest, "spec.index", {"factory": "Flat"}), "spec.gate", {"recall": {"min": 1}})
    answer = api.apply(manifest)
    assert answer.ok, answer.message


def test_rows_that_are_texts(api: Api, smallest: Json) -> None:
    encoder = {"onnx": {"s3": {"bucket": "models"}, "sha256": "ab" * 32}, "textColumn": "text"}
    manifest = changed(smallest, "spec.source.columns", {"text": "text", "metadata": ["text"]})
    answer = api.apply(changed(manifest, "spec.embedding", {"dimension": 384, "encoder": encoder}), dryRun="All")
    assert answer.ok, answer.message


def test_an_index_built_elsewhere(api: Api, smallest: Json) -> None:
    imported = {"index": "a.faiss", "sha256": "0" * 64, "ids": "a.npy", "idsSHA256": "1" * 64}
    manifest = changed(smallest, "spec.gate", {"queries": {"s3": {"bucket": "queries"}}})
    answer = api.apply(changed(manifest, "spec.index", {"import": imported}))
    assert answer.ok, answer.message
    kept = VectorIndexSpec.model_validate(answer.body["spec"]).index.imported
    assert kept is not None
    assert kept.wire() == imported


def test_an_index_in_shards(api: Api, smallest: Json) -> None:
    manifest = changed(smallest, "spec.build", {"parallelism": 8})
    answer = api.apply(changed(manifest, "spec.index", {"shards": 64}))
    assert answer.ok, answer.message
    assert VectorIndexSpec.model_validate(answer.body["spec"]).index.shards == 64
    asked = changed(manifest, "spec.index", {"shards": "Auto"})
    auto = api.apply(changed(asked, "spec.searcher.memoryPerShard", "8Gi"))
    assert auto.ok, auto.message
    assert VectorIndexSpec.model_validate(auto.body["spec"]).memory_per_shard == "8Gi"
    partial = changed(changed(manifest, "spec.index", {"shards": 2}), "spec.searcher", {"partial": "Allow"})
    assert api.apply(partial).ok
    rule = {"name": "lost", "metric": "FiltersLost", "max": "0.5%"}
    tenants = changed(manifest, "spec.searcher", {"auth": {"secretRef": {"name": "t"}, "policies": "Required"}})
    recall = {"name": "found", "metric": "LiveRecall", "min": "93%"}
    tenants = changed(tenants, "spec.guardrails", {"rules": [rule, recall]})
    assert api.apply(changed(tenants, "spec.index", {"shards": 3})).ok
    asked = changed(manifest, "spec.gate", {"k": 7, "queries": {"s3": {"bucket": "queries"}}})
    assert api.apply(changed(asked, "spec.index", {"shards": 2})).ok


def test_a_queue_of_jobs(api: Api, smallest: Json) -> None:
    answer = api.apply(changed(smallest, "spec.build", {"queueName": "ml-batch"}))
    assert answer.ok, answer.message
    assert VectorIndexSpec.model_validate(answer.body["spec"]).build.queue_name == "ml-batch"
    assert api.apply(changed(smallest, "spec.build", {"queueName": "q" * 63})).ok


def test_an_empty_embedding_may_be_filled_in_once(api: Api, smallest: Json) -> None:
    assert api.apply(smallest).ok
    answer = api.apply(changed(smallest, "spec.embedding", {"model": "m", "version": "2", "dimension": 8}))
    assert answer.ok, answer.message


def test_what_is_not_embedding_may_be_changed(api: Api, smallest: Json) -> None:
    manifest = smallest | {"spec": FULL_SPEC}
    assert api.apply(manifest).ok
    vectors = {name: FULL_SPEC["embedding"][name] for name in ("model", "version", "dimension", "metric")}
    kept = {"embedding": vectors, **smallest["spec"]}
    answer = api.apply(smallest | {"spec": kept})
    assert answer.ok, answer.message


def test_unknown_fields_are_dropped_where_validation_is_off(api: Api, smallest: Json) -> None:
    path = path_of(smallest).rpartition("/")[0]
    answer = api.request("POST", path, changed(smallest, "spec.gate.recal", {"min": 1}), fieldValidation="Ignore")
    assert answer.ok, answer.message
    assert "recal" not in answer.body["spec"]["gate"]


def test_kubectl_applies_gets_and_explains(control_plane: ControlPlane, smallest: Json) -> None:
    applied = control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(smallest))
    assert applied.returncode == 0, applied.stderr
    shown = control_plane.kubectl("get", "vix", smallest["metadata"]["name"])
    assert shown.stdout.split("\n")[0].split() == (
        ["NAME", "PHASE", "STABLE", "CANDIDATE", "RECALL", "READY", "ROLLEDOUT", "REASON", "AGE"]
    )
    both = control_plane.kubectl("get", "vectorindex")
    assert smallest["metadata"]["name"] in both.stdout
    explained = control_plane.kubectl("explain", "vix.spec.source.poll")
    assert "How often the source is listed; 0 turns polling off." in explained.stdout
    untyped = control_plane.kubectl("explain", "vix.spec.guardrails.rules.max")
    assert "a number for ClickDepth (3.5)" in untyped.stdout
    numbers = changed(smallest, "spec.guardrails.rules", [{"name": "scores", "metric": "TopScore", "min": 0.45}])
    again = control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(numbers))
    assert again.returncode == 0, again.stderr
    assert (
        yaml.safe_load(control_plane.kubectl("get", "vix", smallest["metadata"]["name"], "-o", "yaml").stdout)["spec"][
            "guardrails"
        ]["rules"][0]["min"]
        == 0.45
    )


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_manifests_we_show_are_accepted(api: Api, path: Path) -> None:
    for manifest in whole(path):
        manifest["metadata"]["namespace"] = "default"
        answer = api.apply(manifest, dryRun="All")
        assert answer.ok, answer.message
        assert VectorIndexSpec.model_validate(answer.body["spec"]) == VectorIndexSpec.model_validate(manifest["spec"])


@pytest.mark.parametrize(
    ("path", "part"), IN_PARTS, ids=[f"{path.relative_to(CHECKOUT)}-{'-'.join(part)}" for path, part in IN_PARTS]
)
def test_the_parts_of_manifests_we_show_are_accepted(api: Api, smallest: Json, path: Path, part: Json) -> None:
    manifest = smallest | {"spec": smallest["spec"] | part}
    for key in ("source", "artifacts"):  # a part of these comes without its place
        manifest["spec"][key] = smallest["spec"][key] | part.get(key, {})
    answer = api.apply(manifest, dryRun="All")
    assert answer.ok, f"{path}: {answer.message}"
    assert VectorIndexSpec.model_validate(answer.body["spec"]) == VectorIndexSpec.model_validate(manifest["spec"])


def test_the_pages_show_manifests_and_parts() -> None:
    """The two tests above ran on something."""
    assert {path.name for path in SHOWN} >= {"README.md", "1-first.yaml", "NOTES.txt"}
    assert {path.name for path, _ in IN_PARTS} >= {"guardrails.md", "operations.md", "security.md"}
