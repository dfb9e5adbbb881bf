"""A frozen view of the HTTPRoute of an index and of the Services behind it. Pure: reads nothing.

Anybody may write a route, and any gateway its status: what is not what it should be counts as not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vectorindex_operator.core.traffic import RouteView
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_operator.reconcile.views import LONGEST_DECISION, owned_uids, ready_addresses

MOST_PARENTS = 32
"""Gateways that an HTTPRoute can have, by its schema."""


def route_view(route: Raw | None, problem: str, services: list[Raw], slices: list[Raw], uid: str) -> RouteView:
    """`problem`: why the route cannot be read. `services`: all of the index; `slices`: theirs."""
    steps = [one for one in services if raw.label(one, labels.COMPONENT) == labels.STEP]
    endpoints: Counter[str] = Counter()
    for one in slices:
        endpoints[raw.label(one, labels.SERVICE_NAME)] += ready_addresses(one)
    view = RouteView(problem=problem[: raw.MESSAGE], services=owned_uids(steps, uid), endpoints=dict(endpoints))
    if problem or route is None:
        return view
    if not raw.is_owned(route, uid):
        return replace(view, exists=True, owned=False)
    meta = raw.part(route, "metadata")
    parents, wanted = _parents(route), raw.rows(raw.part(route, "spec").get("parentRefs"))[:MOST_PARENTS]
    generation = raw.count(meta.get("generation"))
    rows = [[one for one in parents if _is_of(one, ref, meta)] for ref in wanted]
    left = [one for one in parents if not any(_is_of(one, ref, meta) for ref in wanted)]
    # A Gateway has one controller: where one has seen the route, another's row is of who had that Gateway before.
    heard = [any(_seen(one) >= generation for one in each) for each in rows]
    left += [one for has_seen, each in zip(heard, rows, strict=True) if has_seen for one in each]
    takes = [[_said(one, "Accepted", generation) for one in each] for each in rows]
    finds = [[_said(one, "ResolvedRefs", generation) for one in each] for each in rows]
    routes = [[(a, b) for a, b in zip(*both, strict=True)] for both in zip(takes, finds, strict=True)]
    accepted = bool(routes) and all(("", "") in each for each in routes)
    return replace(
        view,
        exists=True,
        uid=raw.text(meta.get("uid")),
        resource_version=raw.text(meta.get("resourceVersion")),
        written_at=max(_changed_at(meta, ""), raw.unix(meta.get("creationTimestamp")) or 0.0),
        said_at=_changed_at(meta, "status"),
        weights=weights(route),
        accepted=accepted,
        behind=any(each and not has_seen for has_seen, each in zip(heard, rows, strict=True)),
        left_behind=any(_seen(one) < generation for one in left),
        refused="" if accepted else _first(takes),
        unresolved="" if accepted else _first(finds),
        unheard=next((_named(ref, meta) for ref, each in zip(wanted, rows, strict=True) if not each), ""),
        decision=read_decision(raw.annotation(route, labels.DECISION, LONGEST_DECISION)),
    )


def weights(route: Raw) -> dict[str, int]:
    """Shares by the name of a Service, of all rules together."""
    shares: Counter[str] = Counter()
    for rule in raw.rows(raw.part(route, "spec").get("rules")):
        for backend in raw.rows(rule.get("backendRefs")):
            shares[raw.text(backend.get("name"), raw.NAME)] += raw.count(backend.get("weight", 1))
    return dict(shares)


def _parents(route: Raw) -> list[Mapping[str, Any]]:
    return raw.rows(raw.part(route, "status").get("parents"))[:MOST_PARENTS]


def _is_of(parent: Mapping[str, Any], ref: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether a row of the status is about this reference: a namespace that is left out is the route's own."""
    about, home = raw.part(parent, "parentRef"), meta.get("namespace")
    return (about.get("name"), about.get("namespace") or home, about.get("sectionName") or "") == (
        ref.get("name"),
        ref.get("namespace") or home,
        ref.get("sectionName") or "",
    )


def _named(ref: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """A Gateway as people name it: namespace/name."""
    return f"{raw.text(ref.get('namespace') or meta.get('namespace'), raw.NAME)}/{raw.text(ref.get('name'), raw.NAME)}"


def _changed_at(meta: Mapping[str, Any], subresource: str) -> float:
    """When anybody last changed this part of it, as the API server notes it with each manager: a status is apart."""
    fields = raw.rows(meta.get("managedFields"))
    times = [raw.unix(one.get("time")) for one in fields if (one.get("subresource") or "") == subresource]
    return max((time or 0.0 for time in times), default=0.0)


def _said(parent: Mapping[str, Any], kind: str, generation: int) -> str | None:
    """Empty: this condition is True. None: it says nothing of this generation. Else why it is not."""
    known = {str(one.get("type")): one for one in raw.rows(parent.get("conditions"))}
    one = known.get(kind)
    if one is None or raw.count(one.get("observedGeneration")) < generation:
        return None
    if one.get("status") == "True":
        return ""
    name = raw.text(raw.part(parent, "parentRef").get("name"), raw.NAME)
    why = f"{raw.text(one.get('reason'), raw.NAME)}: {raw.text(one.get('message'), raw.MESSAGE)}"
    return f"Gateway {name} does not take the route: {kind} is {one.get('status')}, {why}"[: raw.MESSAGE]


def _first(said: list[list[str | None]]) -> str:
    return next((one for each in said for one in each if one), "")


def _seen(parent: Mapping[str, Any]) -> int:
    """The generation that a gateway has seen of the route."""
    return max((raw.count(one.get("observedGeneration")) for one in raw.rows(parent.get("conditions"))), default=0)
