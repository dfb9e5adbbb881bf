"""What an index takes at a time, all its pods together, and whether the namespace's ResourceQuotas have room for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vectorindex_operator.api.quantities import amount

_BYTES = ("memory", "ephemeral-storage", "hugepages-")
_MUST_BE_NAMED = ("cpu", "memory")
"""A pod that says nothing of one of these is refused by a quota that counts it."""


@dataclass(frozen=True, slots=True)
class Pods:
    """So many pods of one kind. `requests`, `limits`: of each one, as Kubernetes writes them."""

    count: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]

    @classmethod
    def of(cls, deployment: Mapping[str, Any], count: int | None = None) -> Pods:
        """Those of the spec of a Deployment, or `count` of them."""
        (one,) = deployment["template"]["spec"]["containers"]
        given = one["resources"]
        return cls(
            deployment["replicas"] if count is None else count, given.get("requests", {}), given.get("limits", {})
        )

    def asks(self, kind: str) -> Mapping[str, str]:
        """`requests` or `limits`; what has a limit and no request requests its limit."""
        return self.limits if kind == "limits" else {**self.limits, **self.requests}


@dataclass(frozen=True, slots=True)
class MomentFacts:
    """All pods at a time: how many, and the sums of what they ask for."""

    when: str
    pods: int
    requests: dict[str, str]
    limits: dict[str, str]


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """A ResourceQuota of the namespace. `lacks`: a sentence for each thing that it has no room for; none: it has."""

    name: str
    lacks: tuple[str, ...]


def moments(
    after: Mapping[str, Sequence[Mapping[str, Any]]],
    serving: str,
    candidate: Sequence[Pods],
    job: Pods | None,
    replaced: set[str],
    *,
    scaled: bool,
) -> Iterator[tuple[str, list[Pods]]]:
    """When the most pods are there, and which. `after`: the Deployments of loaded revisions, as the edit has them;
    `candidate`: what is loaded beside `serving`; `replaced`: revisions whose pods are, one by one; `scaled`: there are
    more or fewer of them."""
    loaded = [Pods.of(one) for some in after.values() for one in some]
    loaded += [Pods.of(one, 1) for name in sorted(replaced & after.keys()) for one in after[name]]
    if job is not None:
        yield "while a Job runs", [*loaded, job]
    elif replaced:
        yield "while pods are replaced", loaded
    elif scaled:
        yield "once it is scaled", loaded
    if candidate:
        stays = [Pods.of(one) for one in after.get(serving, ())]
        yield "while both revisions are loaded" if stays else "while it is loaded", [*stays, *candidate]


def sums(when: str, pods: Sequence[Pods]) -> MomentFacts:
    """As people read it."""
    count = sum(one.count for one in pods)
    requests, limits = (
        {name: _text(name, _sum(pods, kind, name)) for name in _names(pods, kind)} for kind in ("requests", "limits")
    )
    return MomentFacts(when, count, requests, limits)


def room(
    quotas: Iterable[Mapping[str, Any]], now: Sequence[Pods], then: Sequence[tuple[str, Sequence[Pods]]]
) -> Iterator[QuotaFacts]:
    """What each quota has no room for. One with scopes counts some pods only, and is passed over."""
    for quota in quotas:
        spec = quota.get("spec", {})
        if not spec.get("scopes") and not spec.get("scopeSelector"):
            status = quota.get("status", {})
            lacks = [f"{words} {when}" for when, pods in then for words in _lacks(status, now, pods)]
            lacks += _unnamed(status, [one for _, pods in then for one in pods])
            yield QuotaFacts(quota["metadata"]["name"], tuple(lacks))


def _unnamed(status: Mapping[str, Any], pods: Sequence[Pods]) -> Iterator[str]:
    for key in status.get("hard", {}):
        kind, name = _counted(key)
        if name in _MUST_BE_NAMED and any(name not in one.asks(kind) for one in pods):
            yield f"{key} is counted: pods that name none, as some of these, are refused unless a LimitRange gives one"


def _lacks(status: Mapping[str, Any], now: Sequence[Pods], then: Sequence[Pods]) -> Iterator[str]:
    used = status.get("used", {})
    for key, most in status.get("hard", {}).items():
        kind, name = _counted(key)
        if not kind:
            continue
        with suppress(ValueError):  # written as nobody writes it: nothing is said of it
            left = max(amount(most) - amount(used.get(key, "0")), Fraction(0))
            more = _sum(then, kind, name) - _sum(now, kind, name)
            if more > left:
                yield f"{key}: {_text(name, more)} more are needed than now, and {_text(name, left)} left,"


def _counted(key: str) -> tuple[str, str]:
    """Which part of pods a key of a quota counts, and which resource; empty: none of a pod's."""
    if key in ("pods", "count/pods"):
        return "pods", ""
    kind, _, name = key.partition(".")
    if kind in ("requests", "limits") and name:
        return kind, name
    return ("requests", key) if key in ("cpu", "memory", "ephemeral-storage") else ("", "")


def _names(pods: Sequence[Pods], kind: str) -> list[str]:
    return list(dict.fromkeys(name for one in pods for name in one.asks(kind)))


def _sum(pods: Sequence[Pods], kind: str, name: str) -> Fraction:
    if kind == "pods":
        return Fraction(sum(one.count for one in pods))
    return sum((one.count * amount(one.asks(kind).get(name, "0")) for one in pods), Fraction(0))


def _text(name: str, value: Fraction) -> str:
    """A quantity as Kubernetes writes it, rounded up."""
    if name.startswith(_BYTES):
        whole, unit = (2**30, "Gi") if not value % 2**30 else (2**20, "Mi")
        return f"{-(-value // whole)}{unit}"
    return str(value) if value.denominator == 1 else f"{-(-value * 1000 // 1)}m"
