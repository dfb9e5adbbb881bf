"""What tells one revision from another: what it was made of, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.core.observation import RevisionView
from vectorindex_plugin.facts.revision import GuardrailFacts, shown
from vectorindex_plugin.words import size


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """One thing that differs. `part`: spec, data, image, or result; values as text, empty where there is none."""

    part: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DiffFacts:
    before: str
    after: str
    changes: tuple[ChangeFacts, ...]

    @classmethod
    def of(cls, before: RevisionView, after: RevisionView) -> DiffFacts:
        old, new = _values(before), _values(after)
        keys = dict.fromkeys((*old, *new))
        changes = (ChangeFacts(*key, old.get(key, ""), new.get(key, "")) for key in keys)
        return cls(before.name, after.name, tuple(one for one in changes if one.before != one.after))


_Key = tuple[str, str]


def _values(view: RevisionView) -> dict[_Key, str]:
    """(part, name) -> value as text, in the order in which they are shown."""
    return dict([*_made_of(view), *_came_of(view)])


def _made_of(view: RevisionView) -> Iterator[tuple[_Key, str]]:
    frozen = view.spec
    wire = frozen.wire()
    for field in ("indexSpec", "memoryPerShard", "embedding", "columns", "segments", "minScore", "artifacts"):
        name = "index" if field == "indexSpec" else field
        yield from ((("spec", path), text) for path, text in _flat(name, wire.get(field)))
    yield from ((("spec", path), text) for path, text in _flat("searcher.pod", frozen.served_as().pod.wire()))
    yield from ((("data", path), text) for path, text in _flat("source", wire.get("source")))
    yield ("data", "fingerprint"), frozen.fingerprint
    yield ("image", "searcher"), frozen.image
    yield ("spec", "build number"), str(frozen.build_number or "")
    yield ("spec", "refresh"), frozen.served_as().refresh


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Leaves of a JSON value with their paths; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{path}.{key}", part)
    elif isinstance(value, list | tuple):
        if value:
            yield path, ", ".join(map(str, value))
    elif value not in (None, ""):
        yield path, str(value)


def _came_of(view: RevisionView) -> Iterator[tuple[_Key, str]]:
    build, report, rollout = view.status.build, view.status.report, view.status.rollout
    if build is not None:
        yield ("data", "rows"), f"{build.count:,}"
        yield ("result", "factory"), build.factory
        if shards := view.spec.shards(build):
            yield ("result", "shards"), str(shards)
        yield ("result", "index on disk"), size(build.index_bytes)
        yield ("result", "memory of a searcher"), size(build.resident_bytes)
        yield ("result", "built on"), build.device
    if report is not None:
        low = report.overall
        yield ("result", "recall measured against"), report.truth or "Vectors"
        yield ("result", f"recall@{report.k}"), f"{low.recall:.4f} (at least {low.recall_low:.4f})"
        yield ("result", "p95 of the gate"), f"{report.p95_ms:.3g} ms"
        for row in report.segments:
            yield ("result", f"recall of {row.segment or 'all'}"), f"{row.recall:.4f} (at least {row.recall_low:.4f})"
    yield ("result", "phase"), view.status.phase
    for verdict in rollout.verdicts if rollout is not None else ():
        said = GuardrailFacts.said(verdict)
        of = f" of {verdict.segment}" if verdict.segment else ""
        value = f"{said.verdict}, {shown(verdict.metric, verdict.value) or 'no value'}"
        yield ("result", f"guardrail {verdict.rule}{of}"), value
