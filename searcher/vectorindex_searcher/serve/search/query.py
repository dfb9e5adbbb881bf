"""From a request's fields to a checked search: ranges, dimension, and vectors as one float32 array.

Knows no HTTP beyond the two forms of a body, and no FAISS. Every refusal names field, value and remedy.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import contract
from ...index.filters import Columns, FilterError, Predicate, parse
from ..http.messages import Problem
from .fields import MAX_NAME_CHARACTERS, invalid, refuse_unknown

DEFAULT_K = 10
MAX_K = 1000
MAX_VECTORS = 256
"""Vectors in one request: a batch is one piece of work and must not hold up the others for long."""

INCLUDABLE = ("metadata",)
Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class QuerySchema:
    """What this revision accepts and assumes."""

    dimension: int
    metric: contract.Metric
    param_limits: Mapping[str, tuple[int, int]]
    """Search parameter -> least and greatest value, both allowed."""
    segments: frozenset[str] = frozenset()
    segment_params: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Declared segment -> search parameters of its own, instead of the default point's."""
    embedding_model: str = ""
    embedding_version: str = ""
    min_score: float | None = None
    columns: Columns | None = None
    """What filters may name; None when this index cannot be searched with a filter."""


@dataclass(frozen=True, slots=True)
class Search:
    """One checked request. `vectors`: float32 [n, dimension], finite, C-contiguous."""

    vectors: Vectors
    k: int
    params: Mapping[str, int]
    """Those of the segment's own point, and over them those the request named; the rest is the default point's."""
    segment: str
    """A declared segment, or `other`."""
    include_metadata: bool
    min_score: float | None
    filter: Predicate | None = None
    track: bool = False
    """Whether each answer gets a query id, for clicks."""


def segment_of(fields: Mapping[str, Any], terms: QuerySchema) -> str:
    """The segment a request counts for: undeclared names count as `other`. Raises Problem 400 if it is no string."""
    name = fields.get("segment")
    if name is None:
        return contract.OTHER_SEGMENT
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARACTERS:
        raise invalid("segment", name, f"a string of at most {MAX_NAME_CHARACTERS} characters")
    return name if name in terms.segments else contract.OTHER_SEGMENT


# ---------------------------------------------------------------- fields to a search


def search_of(fields: Mapping[str, Any], raw: bytes | None, terms: QuerySchema) -> Search:
    """Check everything. `raw`: vectors as little-endian float32, None when they are in `fields`.

    Raises Problem: 400 for what is malformed or out of range, 422 for another dimension or embedding.
    """
    segment = segment_of(fields, terms)
    _check_embedding(fields.get("embedding"), terms)
    _check_dimension(fields.get("dimension"), terms)
    k = fields.get("k", DEFAULT_K)
    if not _is_int(k) or not 1 <= k <= MAX_K:
        raise invalid("k", k, f"an integer from 1 to {MAX_K}")
    params = _params(fields.get("params"), terms)
    if own := terms.segment_params.get(segment):
        params = {**own, **params}
    return Search(
        vectors=_vectors_of_json(fields, terms) if raw is None else _vectors_of_bytes(raw, terms),
        k=k,
        params=params,
        segment=segment,
        include_metadata=_includes_metadata(fields.get("include")),
        min_score=_min_score(fields, terms),
        filter=_filter(fields.get("filter"), terms),
        track=_track(fields.get("track")),
    )


def _vectors_of_json(fields: Mapping[str, Any], terms: QuerySchema) -> Vectors:
    if ("vector" in fields) == ("vectors" in fields):
        found = "both" if "vector" in fields else "neither"
        raise Problem(
            400,
            "InvalidField",
            f"exactly one of vector and vectors is needed, found {found}",
            field="vector",
            remedy='send {"vector": [..]} for one query, {"vectors": [[..], ..]} for many',
        )
    if "vector" in fields:
        rows, name = [fields["vector"]], "vector"
    else:
        rows, name = fields["vectors"], "vectors"
        if not isinstance(rows, list) or not rows:
            raise invalid(name, rows, "a non-empty list of vectors")
        _check_vector_count(len(rows))
    for number, row in enumerate(rows):
        place = name if name == "vector" else f"vectors[{number}]"
        if not isinstance(row, list):
            raise invalid(place, row, "a list of numbers")
        if len(row) != terms.dimension:
            raise _wrong_dimension(place, len(row), terms)
    return _checked(_packed(rows, name, terms.dimension), name, terms)


def _packed(rows: list[list[float]], name: str, dimension: int) -> Vectors:
    """Lists of Python numbers as float32 [n, dimension].

    struct.pack, because it takes 7 us for 768 numbers where numpy.array takes 18, and refuses strings and nulls, which
    numpy would turn into numbers and NaN.
    """
    packer = struct.Struct(f"{dimension}f")
    try:
        data = packer.pack(*rows[0]) if len(rows) == 1 else b"".join(itertools.starmap(packer.pack, rows))
    except (struct.error, OverflowError):
        for number, row in enumerate(rows):
            for position, value in enumerate(row):
                if not isinstance(value, int | float):
                    place = f"vector[{position}]" if name == "vector" else f"vectors[{number}][{position}]"
                    raise invalid(place, value, "a number") from None
        raise
    return np.frombuffer(data, dtype=np.float32).reshape(len(rows), dimension)


def _vectors_of_bytes(raw: bytes, terms: QuerySchema) -> Vectors:
    if not raw:
        raise invalid("body", "", "at least one vector of little-endian float32")
    width = 4 * terms.dimension
    if len(raw) % width:
        if len(raw) % 4:
            raise invalid("body", f"{len(raw)} bytes", "little-endian float32 numbers of 4 bytes each")
        raise _wrong_dimension("body", len(raw) // 4, terms)
    _check_vector_count(len(raw) // width)
    vectors = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False).reshape(-1, terms.dimension)
    return _checked(vectors, "vectors", terms)


def _checked(vectors: Vectors, name: str, terms: QuerySchema) -> Vectors:
    """Refuse NaN, infinity, numbers whose square is no float32, and zero vectors under Cosine: one pass finds them."""
    with np.errstate(over="ignore", invalid="ignore"):
        if len(vectors) == 1 and 0.0 < np.dot(vectors[0], vectors[0]) < math.inf:
            return vectors  # the usual case, at a fifth of the cost of what follows
        squares = np.einsum("ij,ij->i", vectors, vectors)
    wrong = ~np.isfinite(squares)
    if terms.metric is contract.Metric.COSINE:
        wrong |= squares == 0.0
    if not wrong.any():
        return vectors
    number = int(np.argmax(wrong))
    row = vectors[number]
    place = "vector" if name == "vector" else f"{name}[{number}]"
    position = int(np.argmin(np.isfinite(row)))
    if not math.isfinite(row[position]):
        raise Problem(
            400,
            "NonFiniteVector",
            "a vector must hold finite float32 numbers",
            field=f"{place}[{position}]",
            value=str(row[position]),
            remedy="look for NaN or overflow in the embedding",
        )
    if squares[number] == 0.0:
        raise Problem(
            400,
            "ZeroVector",
            "the cosine of a zero vector is not defined",
            field=place,
            remedy="send the embedding of a text that is not empty",
        )
    position = int(np.argmax(np.abs(row)))
    raise Problem(
        400,
        "VectorTooLarge",
        "the vector's squared length is no float32 number",
        field=f"{place}[{position}]",
        value=float(row[position]),
        remedy="scale the vector",
    )


# ---------------------------------------------------------------- single fields


def _check_embedding(embedding: object, terms: QuerySchema) -> None:
    if embedding is None:
        return
    if not isinstance(embedding, dict):
        raise invalid("embedding", embedding, "an object with model, version or both")
    refuse_unknown(embedding, ("model", "version"), "embedding.")
    for member, served in (("model", terms.embedding_model), ("version", terms.embedding_version)):
        named = embedding.get(member)
        if named is None:
            continue
        if not isinstance(named, str):
            raise invalid(f"embedding.{member}", named, "a string")
        # An index that declares no model cannot contradict the client.
        if served and named != served:
            raise Problem(
                422,
                "WrongEmbedding",
                f"the index was built with embedding {member} {served!r}, the query was made with {named[:120]!r}",
                field=f"embedding.{member}",
                value=named,
                remedy=f"embed the query with {member} {served}",
                members={"expected": served},
            )


def _check_dimension(dimension: object, terms: QuerySchema) -> None:
    """What a binary body's bytes are said to be: those of one long vector look like several short ones."""
    if dimension is None:
        return
    if not isinstance(dimension, int) or dimension < 1:
        raise invalid("dimension", dimension, "how many numbers a vector has")
    if dimension != terms.dimension:
        raise _wrong_dimension("dimension", dimension, terms)


def _params(params: object, terms: QuerySchema) -> dict[str, int]:
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise invalid("params", params, "an object of names and integers")
    refuse_unknown(params, tuple(terms.param_limits), "params.")
    for name, value in params.items():
        low, high = terms.param_limits[name]
        if not _is_int(value) or not low <= value <= high:
            raise invalid(f"params.{name}", value, f"an integer from {low} to {high}")
    return params


def _includes_metadata(include: object) -> bool:
    if include is None:
        return False
    if not isinstance(include, list):
        raise invalid("include", include, f"a list of: {', '.join(INCLUDABLE)}")
    for number, name in enumerate(include):
        if name not in INCLUDABLE:
            raise invalid(f"include[{number}]", name, f"one of: {', '.join(INCLUDABLE)}")
    return "metadata" in include


def _min_score(fields: Mapping[str, Any], terms: QuerySchema) -> float | None:
    value = fields.get("minScore")
    if value is None:
        return terms.min_score
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid("minScore", value, "a finite number")
    return float(value)


def _track(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise invalid("track", value, "true or false")
    return value is True


def _filter(document: object, terms: QuerySchema) -> Predicate | None:
    if document is None:
        return None
    if terms.columns is None:
        remedy = "build the index with factory Flat, IVF or HNSW"
        raise Problem(400, "InvalidFilter", "this index type cannot be filtered", field="filter", remedy=remedy)
    try:
        return parse(document, terms.columns)
    except FilterError as error:
        raise Problem(
            400, "InvalidFilter", error.detail, field=error.where, value=error.value, remedy=error.remedy
        ) from None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_vector_count(count: int) -> None:
    if count > MAX_VECTORS:
        detail = f"{count} vectors exceed the limit of {MAX_VECTORS} in one request"
        raise Problem(
            400, "TooManyVectors", detail, field="vectors", value=count, remedy="send them in several requests"
        )


def _wrong_dimension(place: str, found: int, terms: QuerySchema) -> Problem:
    model = f": {terms.embedding_model}" if terms.embedding_model else ""
    return Problem(
        422,
        "WrongDimension",
        f"the index has dimension {terms.dimension}, the query vector has {found}",
        field=place,
        value=found,
        remedy=f"embed the query with the model of the index{model}",
        members={"expected": terms.dimension},
    )
