"""Models -> CRDs: what Kubernetes asks of a structural schema, and that nothing the models say is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from layers import CHECKOUT
from pydantic import Field

from vectorindex_operator.api import crd
from vectorindex_operator.api.fields import Poll, Quantity
from vectorindex_operator.api.schema import Style, publish, refusal_of, structural
from vectorindex_operator.api.spec import Resources
from vectorindex_operator.api.v1alpha1 import RevisionSpec, VectorIndexSpec, VectorIndexStatus
from vectorindex_searcher.contract import MEMORY_PATTERN, MemoryText, Model

Json = dict[str, Any]
SMALLEST: Json = {"source": {"s3": {"bucket": "embeddings"}}, "artifacts": {"s3": {"bucket": "indexes"}}}


class Inner(Model):
    """An inner object."""

    size: Annotated[float, Field(gt=0, lt=10)] = 1.5
    word: Literal["only"] = "only"


class Base(Model):
    """A base."""

    low: int = 1
    """Said in the base."""


class Outer(Base):
    """An outer object."""

    name: Annotated[str, Field(min_length=1)]
    """What it is called."""
    inner: Inner = Inner()
    other: Inner = Inner(size=2)
    maybe: int | None = None
    many: Annotated[tuple[Inner, ...], Field(max_length=3)] = (Inner(size=3),)
    sizes: Annotated[dict[str, int], Field(max_length=2)] = {}
    anything: dict[str, Any] = {}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema in a schema, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def filled(schema: Json, value: Any) -> Any:
    """`value` with the schema's defaults, as the API server fills them in."""
    if schema.get("type") == "array":
        return [filled(schema["items"], item) for item in value]
    if schema.get("type") != "object" or "properties" not in schema:
        return value
    out = dict(value)
    for name, child in schema["properties"].items():
        if name not in out and "default" in child:
            out[name] = child["default"]
        if name in out:
            out[name] = filled(child, out[name])
    return out


def test_the_generated_files_are_those_of_the_models() -> None:
    assert crd.drift(CHECKOUT) == ""


def test_drift_is_shown_and_mended(tmp_path: Path) -> None:
    written = crd.write(tmp_path)
    assert len(written) == len(crd.files())
    assert crd.write(tmp_path) == [], "writing again changes nothing"
    page = tmp_path / "crds" / "vectorindex.dev_vectorindexes.yaml"
    page.write_text(page.read_text().replace("maximum: 1000\n", "maximum: 999\n", 1))
    difference = crd.drift(tmp_path).splitlines()
    assert [line[0] + line[1:].strip() for line in difference if line[1:].strip().startswith("maximum")] == [
        "-maximum: 999",
        "+maximum: 1000",
    ]
    page.unlink()
    assert "+kind: CustomResourceDefinition" in crd.drift(tmp_path)
    assert crd.write(tmp_path) == [str(page.relative_to(tmp_path))]


class Loose(Model):
    """Text that may be a number."""

    poll: Poll = "5m"
    limit: Annotated[str | None, Field(max_length=9)] = None
    memory: MemoryText | None = None
    cpu: Quantity = "1"


def test_a_quantity_that_is_null_is_none() -> None:
    """The API server stores it, as the schema gives quantities no type: the operator must be able to read it."""
    for asked in ({"requests": {"cpu": None}}, {"limits": {"memory": "1Gi", "cpu": None}}):
        read = Resources.model_validate(asked).wire()
        assert read.get("limits", {}) == ({"memory": "1Gi"} if "limits" in asked else {})
        assert not read.get("requests")


def test_text_that_may_be_a_number() -> None:
    properties = publish(structural(Loose, Style()))["properties"]
    words = "a number, or text such as 500m or 4Gi"
    assert properties["poll"] | {"pattern": ""} == {
        "default": "5m",
        "maxLength": 20,
        "pattern": "",
        "x-kubernetes-int-or-string": True,
        "x-kubernetes-validations": [
            {
                "rule": "type(self) != int || self == 0",
                "message": "a number needs a unit (90s, 15m, 1h30m); only 0 stands alone",
            }
        ],
    }
    assert properties["limit"] == {"type": "string", "maxLength": 9}
    assert properties["memory"] == {
        "maxLength": 20,
        "pattern": MEMORY_PATTERN,
        "x-kubernetes-int-or-string": True,
        "minimum": 1,
        "maximum": 10**15 - 1,
    }
    assert properties["cpu"] | {"pattern": ""} == {
        "default": "1",
        "maxLength": 32,
        "pattern": "",
        "x-kubernetes-preserve-unknown-fields": True,
        "anyOf": [{"enum": [words]}, {"not": {"maxLength": 0}}, {"minimum": 0, "not": {"minimum": 1e18}}],
    }


def test_what_the_operator_writes_is_the_text() -> None:
    for _, node in nodes(structural(Loose, crd.OPERATOR_WRITES)):
        assert node["type"] in ("object", "string")
        assert "x-numbers" not in node


def test_a_structural_schema_of_every_form() -> None:
    schema = publish(structural(Outer, Style(list_keys={Inner: "word"})))
    inner = {
        "size": {
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 10,
            "exclusiveMaximum": True,
            "default": 1.5,
        },
        "word": {"type": "string", "enum": ["only"], "default": "only"},
    }
    plain = {"type": "object", "description": "An inner object.", "properties": inner}
    assert schema == {
        "type": "object",
        "description": "An outer object.",
        "required": ["name"],
        "properties": {
            "low": {"type": "integer", "format": "int64", "default": 1, "description": "Said in the base."},
            "name": {"type": "string", "minLength": 1, "description": "What it is called."},
            "inner": plain | {"default": {}},
            "other": plain | {"default": {"size": 2.0}},
            "maybe": {"type": "integer", "format": "int64"},
            "many": {
                "type": "array",
                "items": plain,
                "maxItems": 3,
                "default": [{"size": 3.0}],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["word"],
            },
            "sizes": {
                "type": "object",
                "additionalProperties": {"type": "integer", "format": "int64"},
                "maxProperties": 2,
                "default": {},
            },
            "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "default": {}},
        },
    }


def test_what_the_operator_writes_has_no_defaults_and_one_owner() -> None:
    schema = structural(Outer, Style(defaults=False, rules=False, atomic=True))
    assert not [path for path, node in nodes(schema) if "default" in node]
    assert schema["properties"]["inner"]["x-kubernetes-map-type"] == "atomic"
    assert schema["properties"]["sizes"]["x-kubernetes-map-type"] == "atomic"
    assert "x-kubernetes-map-type" not in schema


def test_a_union_is_refused() -> None:
    class Either(Model):
        value: int | str

    with pytest.raises(TypeError, match="a union of 2 types"):
        structural(Either, Style())


@pytest.mark.parametrize("kind", crd.kinds(), ids=lambda kind: kind.name)
def test_schemas_hold_nothing_that_kubernetes_forbids(kind: crd.Kind) -> None:
    forbidden = {"$ref", "$defs", "title", "oneOf", "const", "propertyNames", "x-model", "x-numbers"}
    root = kind.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in nodes(root):
        assert not forbidden & set(node), path
        assert "type" in node or {"pattern", "maxLength"} <= set(node) or refusal_of(node), path
        assert node.get("additionalProperties") is not False, path
        assert not isinstance(node.get("exclusiveMinimum", True), float), path


def test_everything_a_user_writes_is_bounded() -> None:
    """CEL's cost is estimated from these bounds: without them the API server refuses a rule, or the CRD."""
    for path, node in nodes(structural(VectorIndexSpec, crd.USER_WRITES)):
        if refusal_of(node):
            continue
        kind = node.get("type", "text or number")
        if kind == "string":
            assert "maxLength" in node or "enum" in node, path
        elif kind == "text or number":
            assert "maxLength" in node, path
        elif kind == "array":
            assert "maxItems" in node, path
        elif kind == "object":
            assert "properties" in node or "maxProperties" in node, path
        elif kind == "integer":
            assert {"minimum", "maximum"} <= set(node), path


def test_everything_a_user_writes_is_described() -> None:
    schema = structural(VectorIndexSpec, crd.USER_WRITES)
    words = {path: node.get("description") or refusal_of(node) for path, node in nodes(schema)}
    assert [path for path, text in words.items() if not path.endswith("[]") and not text] == []


@pytest.mark.parametrize(
    "spec",
    [
        SMALLEST,
        SMALLEST | {"build": {"resources": {"limits": {"memory": "8Gi"}}}},
        SMALLEST | {"guardrails": {"rules": [{"name": "slow", "metric": "LatencyP99", "max": "40ms"}]}},
        SMALLEST | {"gate": {"queries": {"s3": {"bucket": "queries"}}, "relevance": {}}},
        SMALLEST | {"gate": {"queries": {"live": {}}}},
    ],
)
def test_defaults_of_schema_and_models_agree(spec: Json) -> None:
    schema = structural(VectorIndexSpec, crd.USER_WRITES)
    assert filled(schema, spec) == VectorIndexSpec.model_validate(spec).wire()


def test_statuses_have_no_defaults_and_no_rules() -> None:
    for model in (VectorIndexStatus, RevisionSpec):
        for path, node in nodes(structural(model, crd.OPERATOR_WRITES)):
            assert not {"default", "x-kubernetes-validations"} & set(node), path


def test_a_bound_between_whole_numbers_is_a_rule_with_the_right_words() -> None:
    recall = structural(VectorIndexSpec, crd.USER_WRITES)["properties"]["index"]["properties"]["objective"]
    node = recall["properties"]["recall"]
    assert (node["minimum"], node["maximum"]) == (0.0, 1.0)
    assert node["x-kubernetes-validations"] == [{"rule": "self >= 0.5", "message": "must be at least 0.5"}]


class Fenced(Model):
    """What refuses a field."""

    refused: ClassVar[Mapping[str, str]] = {"hostNetwork": "not here"}


def test_a_refused_field_is_known_and_takes_no_value() -> None:
    """Unknown it would be dropped without a word where validation is not strict."""
    node = structural(Fenced, Style())["properties"]["hostNetwork"]
    assert node == {"x-kubernetes-preserve-unknown-fields": True, "enum": ["none: not here"]}
    assert refusal_of(node) == "not here"
    assert "hostNetwork" not in structural(Fenced, crd.OPERATOR_WRITES)["properties"]
    page = crd.files()["docs/reference/api.md"]
    assert "- `hostNetwork`: pods share nothing with their node" in page
    assert "| `hostNetwork` |" not in page


def test_a_crd_too_large_for_kubectl_apply_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crd, "SIZE_LIMIT", 10_000)
    with pytest.raises(ValueError, match="the CRD of VectorIndex takes"):
        crd.files()


def test_a_crd_that_helm_would_misread_is_an_error() -> None:
    text = {"spec": {"description": "write {{revision}}"}, "apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}
    with pytest.raises(ValueError, match="Helm would read"):
        crd._template(text)


def test_the_reference_page_has_every_field_and_its_links_lead_somewhere() -> None:
    page = crd.files()["docs/reference/api.md"]
    for name in ("minMRR", "falseTripBudget", "segmentColumn", "deletionPolicy", "podTemplate", "observedGeneration"):
        assert f"| `{name}` |" in page
    headings = re.findall(r"^### (.*)$", page, re.MULTILINE)
    anchors = {heading.lower().replace(".", "").replace("[]", "").replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors


def test_a_copy_of_the_spec_is_described_once() -> None:
    """Each kind of store at one more place would make the CRD larger than `kubectl apply` takes."""
    version = crd.vector_index().crd()["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]["properties"]
    live = root["status"]["properties"]["live"]
    assert live["description"]
    assert "description" not in yaml.dump(live["properties"])
    assert "description" in root["spec"]["properties"]["searcher"]["properties"]["replicas"]
    fields = {"description": {"type": "string", "description": "Said."}, "n": {"items": {"description": "Said."}}}
    assert crd._unworded(fields) == {"description": {"type": "string"}, "n": {"items": {}}}


def test_kinds_are_served_under_their_names() -> None:
    names = [yaml.safe_load(text)["spec"]["names"] for path, text in crd.files().items() if path.startswith("crds/")]
    assert [(one["plural"], one["shortNames"], one["categories"]) for one in names] == [
        ("vectorindexes", ["vix"], ["vectorindex"]),
        ("vectorindexrevisions", ["vixr"], ["vectorindex"]),
    ]
