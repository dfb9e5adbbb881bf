"""The OpenAPI document against the running searcher: real answers, every path, every kind of problem."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from serving_pod import DIMENSION, Pod, make_engine, running

from vectorindex_searcher import contract
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve import openapi
from vectorindex_searcher.serve.search.fields import search_fields

SERVE = Path(openapi.__file__).parent
Json = dict[str, Any]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, np.ndarray]:
    return make_engine(tmp_path_factory.mktemp("artifact"), list(range(400)))


@pytest.fixture(scope="module")
def pod(engine: tuple[Engine, np.ndarray]) -> Iterator[Pod]:
    with running(engine[0]) as pod:
        yield pod


@pytest.fixture(scope="module")
def described(pod: Pod) -> Json:
    status, headers, document = pod.request("GET", "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert isinstance(document, dict)
    return document


def check(described: Json, schema: Json, value: object) -> None:
    """Raises jsonschema.ValidationError. Open objects are closed first: an undocumented member is a mistake here."""
    components = json.loads(json.dumps(described["components"]))
    for name in set(components["schemas"]) - {"Filter", "Condition"}:
        _close(components["schemas"][name])
    whole = {**schema, "components": components}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            _close(value)


def answer_schema(described: Json, method: str, path: str, status: int, content_type: str) -> Json:
    responses = described["paths"][path][method.lower()]["responses"]
    response = responses[str(status)]
    if "$ref" in response:
        response = described["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema: Json = response["content"][content_type]["schema"]
    return schema


def test_the_documents_are_valid_openapi(described: Json) -> None:
    for document in (described, openapi.document(), json.loads(openapi.REFERENCE.read_text())):
        OpenAPIV31SpecValidator(document).validate()


def test_every_path_and_method_is_described(described: Json, pod: Pod) -> None:
    tree = ast.parse((SERVE / "app.py").read_text())
    (routes,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and "_routes" in ast.dump(node.target)
    ]
    assert isinstance(routes, ast.Dict)
    paths = {key.value.decode() for key in routes.keys if isinstance(key, ast.Constant)}
    assert paths == set(described["paths"])
    for path, methods in described["paths"].items():
        for method in methods:
            assert pod.request(method.upper(), path)[0] not in (404, 405)


SEARCHES: list[Json] = [
    {"vector": [1] * DIMENSION},
    {"vectors": [[1] * DIMENSION, [0.5] * DIMENSION], "k": 400, "include": ["metadata"]},
    {"vector": [1] * DIMENSION, "k": 3, "segment": "keyword", "minScore": 2, "params": {"efSearch": 50}},
    {"vector": [1] * DIMENSION, "params": {"nprobe": 3, "efSearch": 50}},
    {"vector": [1] * DIMENSION, "filter": {"title": {"in": ["title 1", "title 2"]}}, "include": ["metadata"]},
    {"vector": [1] * DIMENSION, "filter": {"or": [{"title": "title 3"}, {"not": {"title": {"eq": "title 4"}}}]}},
    {"vector": [1] * DIMENSION, "embedding": {"model": "mini"}, "segment": None, "params": None, "include": None},
]


@pytest.mark.parametrize("body", SEARCHES)
def test_good_requests_and_their_answers_are_as_described(pod: Pod, described: Json, body: Json) -> None:
    status, _, answer = pod.search(body)
    assert status == 200, answer
    check(described, {"$ref": "#/components/schemas/Search"}, body)
    check(described, answer_schema(described, "post", "/v1/search", 200, "application/json"), answer)


def test_the_index_document_is_as_described(pod: Pod, described: Json) -> None:
    _, _, answer = pod.request("GET", "/v1/index")
    check(described, answer_schema(described, "get", "/v1/index", 200, "application/json"), answer)
    assert described["components"]["schemas"]["Vector"]["minItems"] == answer["dimension"] == DIMENSION


BAD: list[tuple[Json, int]] = [
    ({}, 400),
    ({"vector": [1] * DIMENSION, "k": 0}, 400),
    ({"vector": [1] * DIMENSION, "k": 1001}, 400),
    ({"vector": [1] * DIMENSION, "ks": 3}, 400),
    ({"vector": [1] * DIMENSION, "vectors": [[1] * DIMENSION]}, 400),
    ({"vector": [1] * DIMENSION, "params": {"nprobes": 3}}, 400),
    ({"vector": [1] * DIMENSION, "params": {"nprobe": -1}}, 400),
    ({"vector": [1] * DIMENSION, "params": {"efSearch": 0}}, 400),
    ({"vector": [1] * DIMENSION, "include": ["vectors"]}, 400),
    ({"vector": [1] * DIMENSION, "filter": {"nothing": 3}}, 400),
    ({"vector": [1] * (DIMENSION - 1)}, 422),
]


@pytest.mark.parametrize(("body", "status"), BAD)
def test_what_the_document_refuses_the_searcher_refuses_with_a_described_problem(
    pod: Pod, described: Json, body: Json, status: int
) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(described, {"$ref": "#/components/schemas/Search"}, body)
    found, headers, answer = pod.search(body)
    assert found == status
    check(described, answer_schema(described, "post", "/v1/search", found, headers["content-type"]), answer)


def test_the_binary_parameters_are_those_that_the_searcher_takes(pod: Pod, described: Json) -> None:
    values = {"k": "3", "segment": "keyword", "minScore": "0.1", "include": "metadata", "filter": '{"title":"title 5"}'}
    values |= {
        "dimension": str(DIMENSION),
        "params.efSearch": "30",
        "track": "true",
        "embedding.model": "mini",
        "embedding.version": "1",
    }
    values |= {f"params.{name}": "3" for name in contract.SEARCH_PARAMS if name != "efSearch"}
    parameters = described["paths"]["/v1/search"]["post"]["parameters"]
    assert {one["name"] for one in parameters if one["in"] == "query"} == set(values)
    vector = np.ones(DIMENSION, np.float32).tobytes()
    headers = {"Content-Type": "application/octet-stream"}
    for name, value in values.items():
        status, _, answer = pod.request(
            "POST", f"/v1/search?{name}={value.replace(' ', '%20')}", vector, headers=headers
        )
        assert status == 200, answer


def test_the_answers_of_a_search_are_of_the_described_types(pod: Pod, described: Json) -> None:
    content = described["paths"]["/v1/search"]["post"]["responses"]["200"]["content"]
    vector = np.ones(DIMENSION, np.float32).tobytes()
    for accept in ("application/json", "application/octet-stream"):
        headers = {"Content-Type": "application/octet-stream", "Accept": accept}
        status, found, _ = pod.request("POST", "/v1/search", vector, headers=headers)
        assert (status, found["content-type"]) == (200, accept)
        assert accept in content
    assert len(content) == 2


def problems_in_code() -> dict[str, int]:
    """Kind -> status of every Problem(...) that the user port's modules raise."""
    found = {}
    admin_ports = {"admin.py", "internal.py", "front.py", "point.py", "shadowing.py", *(SERVE / "shadow").glob("*.py")}
    for path in SERVE.rglob("*.py"):
        if {path, path.name} & admin_ports:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                status, kind = node.args[:2]
                assert isinstance(status, ast.Constant), f"{path.name}:{node.lineno}: give the status as a number"
                assert isinstance(kind, ast.Constant), f"{path.name}:{node.lineno}: give the kind as a text"
                found[str(kind.value)] = int(str(status.value))
    return found


def test_every_kind_of_problem_in_the_code_is_described_and_no_other() -> None:
    assert problems_in_code() == {kind: status for status, kinds in openapi.PROBLEMS.items() for kind in kinds}


def test_every_status_of_a_problem_is_an_answer_of_some_path(described: Json) -> None:
    named = {
        int(status)
        for methods in described["paths"].values()
        for one in methods.values()
        for status in one["responses"]
    }
    # 404 has no path of its own.
    assert named == set(openapi.PROBLEMS) - {404} | {200, 202}


def test_the_reference_is_what_the_code_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert openapi.main(["--check"]) == 0, "run `make generate`"
    monkeypatch.setattr(openapi, "REFERENCE", tmp_path / "openapi.json")
    assert openapi.main(["--check"]) == 1
    openapi.main(["--write"])
    assert openapi.main(["--check"]) == 0


def test_tokens_are_in_it_exactly_when_they_are_asked_for(described: Json) -> None:
    assert "security" not in described
    index = {"name": "x", "dimension": 3, "idType": "int64"}
    secured = openapi.document(index, tokens=True)
    assert secured["security"] == [{"bearer": []}]
    assert secured["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_feedback_is_taken_as_described(pod: Pod, described: Json) -> None:
    body = {"vector": [1.0] * DIMENSION, "k": 3, "track": True}
    check(described, {"$ref": "#/components/schemas/Search"}, body)
    query_id = pod.search(body)[2]["results"][0]["queryId"]
    asked = described["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for click, wanted in (({"rank": 2}, 202), ({"clicks": [1, 2]}, 202), ({"rank": 4}, 400)):
        document = {"queryId": query_id, **click}
        check(described, asked, document)
        status, headers, answer = pod.request("POST", "/v1/feedback", document)
        assert status == wanted
        check(described, answer_schema(described, "post", "/v1/feedback", status, headers["content-type"]), answer)


def examples(node: Any) -> Iterator[tuple[Json, Any]]:
    """Every schema with an example beside it or in it."""
    if isinstance(node, dict):
        schema = node.get("schema", node)
        yield from ((schema, node[name]) for name in ("example", "default") if name in node)
        for name, value in node.items():
            yield from () if name in ("example", "default") else examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from examples(value)


def test_every_example_and_default_is_valid(described: Json) -> None:
    for document in (described, openapi.document()):
        found = list(examples(document))
        assert len(found) > 2
        for schema, value in found:
            check(document, schema, value)


def test_every_field_of_a_request_is_described_with_its_bounds(described: Json) -> None:
    """A field that a request may have and the document does not name would be refused by those who believe it."""
    body = described["components"]["schemas"]["Search"]["properties"]
    query = {one["name"] for one in described["paths"]["/v1/search"]["post"]["parameters"]}
    known = search_fields(texts=False)
    assert not {"text", "texts"} & set(body), "this index has no encoder"
    for name, field in known.items():
        assert (name in body) is field.in_body
        assert any(one.partition(".")[0] == name for one in query) is field.in_query
