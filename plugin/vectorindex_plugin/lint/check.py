"""All checks of one manifest, in the order in which a cluster would come to them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from vectorindex_operator.api import crd
from vectorindex_operator.api.v1alpha1 import API_VERSION, GROUP, VectorIndexSpec
from vectorindex_plugin.lint import rules, schema
from vectorindex_plugin.lint.facts import FaultFacts, LintFacts
from vectorindex_plugin.lint.manifests import Manifest
from vectorindex_searcher.contract import ExitCode

MANY_ROWS = 1 << 40
"""A factory string is tried for so many: how many there are stands in no manifest."""
NEEDS_FAISS = "index.factory is not tried: that needs FAISS (extra searcher)"
NEEDS_DIMENSION = "index.factory is not tried: embedding.dimension is not given"


def lint(manifests: Iterable[Manifest], *, tries: bool = True) -> LintFacts:
    """Check all VectorIndexes; other kinds are passed over. `tries`: factory strings with FAISS, seconds for each."""
    checked, found, notes = 0, [], []
    for one in manifests:
        if one.problem:
            found.append(FaultFacts(one.file, one.line, "", "", one.problem))
        elif _is_ours(one.value):
            checked += 1
            faults = list(_faults(one.value))
            notes += _tried(one.value["spec"], faults) if tries and not faults else []
            name = str(_part(one.value, "metadata").get("name", ""))
            found += [FaultFacts(one.file, line, name, key, "it stands twice") for key, line in one.repeated]
            found += [FaultFacts(one.file, one.line_of(path), name, dotted(path), words) for path, words in faults]
    return LintFacts(checked, tuple(found), tuple(dict.fromkeys(notes)))


def dotted(path: schema.Path) -> str:
    """A path as the API server writes it: spec.segments[0].name."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _part(value: Any, name: str) -> Mapping[str, Any]:
    part = value.get(name) if isinstance(value, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _is_ours(value: Any) -> bool:
    """Whether a document is about a kind of our group. A list of objects is read object by object elsewhere."""
    return isinstance(value, Mapping) and str(value.get("apiVersion", "")).startswith(f"{GROUP}/")


@cache
def index_schema() -> dict[str, Any]:
    """The schema that the CRD of this release has, without the status."""
    kind = crd.vector_index().crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = {name: field for name, field in kind["properties"].items() if name != "status"}
    # Labels, annotations and the like are the API server's own.
    fields["metadata"] = {**fields["metadata"], "x-kubernetes-preserve-unknown-fields": True}
    return {**kind, "properties": fields}


@cache
def _shape() -> schema.Shape:
    return schema.Shape.of(index_schema())


@cache
def _rules() -> rules.Rules:
    return rules.Rules(index_schema())


def _faults(value: Mapping[str, Any]) -> Iterator[schema.Fault]:
    if value["apiVersion"] != API_VERSION or value.get("kind") != "VectorIndex":
        yield ("kind",), f"{value['apiVersion']} {value.get('kind')} is none of {API_VERSION} that people write"
        return
    whole = {name: part for name, part in value.items() if name != "status"}
    filled = schema.with_defaults(whole, index_schema())
    shape = list(_shape().faults(filled))
    yield from shape
    if not _part(value, "metadata").get("name"):
        yield ("metadata", "name"), "it is required"
        return
    said = list(_rules().faults(filled, broken=[path for path, _ in shape]))
    yield from said
    if not shape and not said:
        yield from _by_the_models(filled["spec"])


def against_edit(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[schema.Fault]:
    """What rules say of an object that is edited, those about the edit as well."""
    old, new = _filled(before["spec"]), _filled(after["spec"])
    for path, words in rules.Rules(index_schema()["properties"]["spec"]).faults(new, old):
        yield ("spec", *path), words


def spec_of(value: Mapping[str, Any]) -> VectorIndexSpec:
    """The spec of a manifest without faults, as the API server would store it."""
    return VectorIndexSpec.model_validate(_filled(value["spec"]))


def _filled(spec: Any) -> Any:
    return schema.with_defaults(spec, index_schema()["properties"]["spec"])


def _by_the_models(spec: Any) -> Iterator[schema.Fault]:
    """What the operator itself would not read. The schema is made of the same models, so that is next to nothing."""
    try:
        VectorIndexSpec.model_validate(spec)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            yield ("spec", *fault["loc"]), fault["msg"]


def _tried(raw: Any, faults: list[schema.Fault]) -> list[str]:
    """Have the data plane try a factory string in miniature, in its own process. Answers what kept it from that."""
    spec = spec_of({"spec": raw})
    factory, dimension = spec.index.factory, spec.embedding.dimension
    if factory in ("Auto", "Flat"):
        return []
    if dimension is None:
        return [NEEDS_DIMENSION]
    if importlib.util.find_spec("faiss") is None:
        return [NEEDS_FAISS]
    from vectorindex_searcher.errors import TaskError
    from vectorindex_searcher.index.choose.rehearsal import rehearse

    try:
        rehearse(factory, MANY_ROWS, dimension, spec.embedding.metric)
    except TaskError as error:
        if error.exit_code == ExitCode.BAD_SPEC:
            faults.append((("spec", "index", "factory"), f"{error.failure.reason}: {error.failure.message}"))
        else:
            return [f"index.factory is not tried: {error}"]
    return []
