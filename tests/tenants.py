"""Rows of three tenants, the policies of their tokens, and requests at random that reach for the rows of others."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from vectorindex_searcher.serve.http.limits import LOOP_BYTES

COUNT, DIMENSION = 1000, 8
TENANTS = np.array(["a", "b", "c"])[np.random.default_rng(1).choice(3, COUNT, p=[0.6, 0.35, 0.05])]
SIZES = np.arange(COUNT) % 97
TAGS = [["new"] if n % 3 == 0 else (["old", "new"] if n % 3 == 1 else None) for n in range(COUNT)]
TOKEN = {name: f"the-token-of-{name}-0123456789" for name in ("a", "b", "c", "nobody", "support", "broken", "twice")}
POLICIES: list[dict[str, Any]] = [
    *({"token": name, "filter": {"tenant": {"eq": name}}} for name in "abc"),
    {"token": "support", "allRows": True},
    {"token": "broken", "filter": {"shop": "a"}},
    {"token": "twice", "filter": {"tenant": "a"}},
    {"token": "twice", "allRows": True},
    {"token": "of no file", "allRows": True},
]
BINARY = "application/octet-stream"


def a_filter(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """Anything that a filter may say, and rather often what would reach for the rows of others."""
    kind = draw.choice(["tenant", "size", "tags", "not", "and", "or"] if depth < 3 else ["tenant", "size", "tags"])
    match kind:
        case "tenant":
            return {"tenant": draw.choice([
                "a", "b", {"in": ["a", "b", "c"]}, {"ne": "a"}, {"exists": True}, {"gte": ""}, {"in": []},
            ])}  # fmt: skip
        case "size":
            sizes = [{"gte": 0}, {"lt": 40}, 5, {"in": [1, 2, 3]}, {"exists": False}, {"lt": 2**62}]
            return {"size": draw.choice(sizes)}
        case "tags":
            return {"tags": draw.choice(["new", "old", {"exists": False}])}
        case "not":
            return {"not": a_filter(draw, depth + 1)}
    return {kind: [a_filter(draw, depth + 1) for _ in range(draw.randint(1, 3))]}


def a_request(draw: random.Random) -> tuple[str, object, dict[str, str], int]:
    """Path, body, headers and number of queries of any search."""
    fields: dict[str, Any] = {"k": draw.choice([1, 5, 50, 400, COUNT])}
    if draw.random() < 0.7:
        fields["filter"] = a_filter(draw)
    if draw.random() < 0.3:
        fields["minScore"] = draw.uniform(-1, 1)
    count = draw.choice([1, 1, 3])
    vectors = [[draw.gauss(0, 1) for _ in range(DIMENSION)] for _ in range(count)]
    headers = {"Accept": BINARY} if draw.random() < 0.4 else {}
    if not headers and draw.random() < 0.5:
        fields["include"] = ["metadata"]
    if draw.random() < 0.4:
        text = "&".join(
            f"{name}={quote(orjson.dumps(value) if name == 'filter' else str(value))}"
            for name, value in fields.items()
            if name != "include"
        )
        body: object = np.array(vectors, "<f4").tobytes()
        return f"/v1/search?{text}&dimension={DIMENSION}", body, headers | {"Content-Type": BINARY}, count
    if draw.random() < 0.15:  # so long that a thread reads it
        fields["filter"] = {
            "and": [
                {"size": {"in": [*range(60), *range(10**15, 10**15 + 2600)]}},
                fields.get("filter", {"tenant": "b"}),
            ]
        }
        fields["k"] = 5
        vectors = (vectors * 256)[:256]
        assert len(orjson.dumps(fields | {"vectors": vectors})) > LOOP_BYTES
    one = len(vectors) == 1 and draw.random() < 0.5
    return "/v1/search", fields | ({"vector": vectors[0]} if one else {"vectors": vectors}), headers, len(vectors)


def ids_of(answer: Any, queries: int) -> list[int]:
    if isinstance(answer, dict):
        assert len(answer["results"]) == queries
        for result in answer["results"]:
            for number, metadata in zip(result["ids"], result.get("metadata", ()), strict=False):
                assert metadata["tenant"] == TENANTS[number]
        return [number for result in answer["results"] for number in result["ids"]]
    assert answer[:4] == b"VXA1"
    count, hits = np.frombuffer(answer, "<u4", 2, 4)
    assert count == queries
    return list(np.frombuffer(answer, "<i8", hits, 16))
