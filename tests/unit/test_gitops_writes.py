"""What the GitOps tests on a cluster count as a write and whom they name for it, and how long rest is said to be."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from control_plane import Api
from gitops.argocd import ArgoCD
from gitops_cluster.writes import Change, Recorder, writers
from http_stub import Exchange, answering

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from gitops_rest import Rest, disturbances, page

Json = dict[str, Any]
OPERATOR, ARGO = "vectorindex-operator", "argocd-controller"
KINDS = {"resources": [{"name": "pods", "namespaced": True, "verbs": ["list", "watch"]}]}
PODS = "/api/v1/namespaces/search/pods"


def entry(manager: str, at: str = "10:00:00Z", subresource: str = "", **fields: Any) -> Json:
    return {
        "manager": manager,
        "operation": "Apply",
        "time": f"2026-11-28T{at}",
        "fieldsV1": fields,
        "subresource": subresource,
    }


def obj(*entries: Json, version: str = "1", name: str = "a", **status: Any) -> Json:
    meta = {"name": name, "namespace": "search", "resourceVersion": version, "managedFields": list(entries)}
    return {"metadata": meta, "status": status}


# ---------------------------------------------------------------- who


def test_the_writer_is_whose_entry_is_another() -> None:
    spec, status = entry(ARGO), entry(OPERATOR, subresource="status")
    later = entry(OPERATOR, "10:00:05Z", subresource="status")
    assert writers(obj(spec, status), obj(spec, later)) == (OPERATOR,)
    assert writers(obj(spec), obj(entry(ARGO, more={}), later)) == (ARGO, OPERATOR)
    assert writers(None, obj(spec)) == (ARGO,)


def test_who_writes_twice_in_a_second_is_named_again() -> None:
    spec, status = entry(ARGO), entry(OPERATOR, "10:00:05Z", subresource="status")
    assert writers(obj(spec, status), obj(spec, status, version="2")) == (OPERATOR,)
    assert writers(obj(), obj()) == ()


# ---------------------------------------------------------------- what


class Server:
    """An API server with one kind: `turns` answers its watches, the first one first."""

    def __init__(self, listed: list[Json], *turns: Callable[[Exchange], None]) -> None:
        self.listed, self.turns, self.listings = listed, list(turns), 0

    def __call__(self, exchange: Exchange) -> None:
        path, _, query = exchange.path.partition("?")
        if path == "/apis":
            exchange.answer(200, {"groups": []})
        elif path == "/api/v1":
            exchange.answer(200, KINDS)
        elif "watch=1" not in query:
            self.listings += 1
            exchange.answer(200, {"metadata": {"resourceVersion": "7"}, "items": self.listed})
        elif self.turns:
            self.turns.pop(0)(exchange)
        else:
            time.sleep(0.02)
            exchange.answer(200, "")


def sends(*events: tuple[str, Json]) -> Callable[[Exchange], None]:
    lines = "".join(json.dumps({"type": kind, "object": one}) + "\n" for kind, one in events)
    return lambda exchange: exchange.answer(200, lines)


def recorded(server: Server, enough: int) -> list[Change]:
    with answering(server) as url:
        api = Api(url, urllib3.PoolManager(timeout=5.0), token="")
        recorder = Recorder(api, ("search",))
        recorder.start()
        deadline = time.monotonic() + 10
        while len(recorder.changes) < enough and time.monotonic() < deadline:
            time.sleep(0.01)
        return recorder.stop(settle=0.05)


def test_every_event_of_a_watch_is_a_change_and_what_was_there_before_is_none() -> None:
    first = obj(entry(OPERATOR))
    later = obj(entry(OPERATOR, "10:00:09Z"), version="8")
    born = obj(entry("kubelet"), version="9", name="b")
    mark = {"metadata": {"resourceVersion": "11"}}
    server = Server([first])

    def told(exchange: Exchange) -> None:
        server.listed = [later]
        sends(("MODIFIED", later), ("ADDED", born))(exchange)

    server.turns = [told, sends(("BOOKMARK", mark), ("DELETED", born))]
    found = [(one.what, one.name, one.by) for one in recorded(server, 3)]

    assert found == [("MODIFIED", "a", (OPERATOR,)), ("ADDED", "b", ("kubelet",)), ("DELETED", "b", ())]


@pytest.mark.parametrize("in_the_stream", [False, True])
def test_what_a_watch_missed_is_found_by_the_list_after_it(in_the_stream: bool) -> None:
    """An API server that has forgotten what was before: 410, as an answer or in the stream."""
    first, other = obj(entry(OPERATOR)), obj(entry(ARGO, "10:00:09Z"), version="8")
    server = Server([first, obj(entry(OPERATOR), name="b")])

    def gone(exchange: Exchange) -> None:
        server.listed = [other]
        if in_the_stream:
            sends(("ERROR", {"code": 410}))(exchange)
        else:
            exchange.answer(410, {})

    server.turns = [gone]
    found = {(one.what, one.name, one.by) for one in recorded(server, 2)}

    assert found == {("MISSED", "a", (ARGO,)), ("DELETED", "b", ())}
    assert server.listings >= 3, "not only at the beginning and at the end"


def test_a_watch_that_says_nothing_of_a_change_is_found_out_in_the_end() -> None:
    """What it was last told is no longer what is there."""
    server = Server([obj(entry(OPERATOR))])
    with answering(server) as url:
        recorder = Recorder(Api(url, urllib3.PoolManager(timeout=5.0), token=""), ("search",))
        recorder.start()
        server.listed = [obj(entry(OPERATOR, "10:00:09Z"), version="8")]
        found = [(one.what, one.name, one.by) for one in recorder.stop(settle=0.0)]
    assert found == [("MISSED", "a", (OPERATOR,))]


def test_argo_cds_own_count_is_of_syncs_and_of_runs_of_kubectl() -> None:
    """Not its argocd_app_k8s_request_total, which knows nothing of what kubectl writes."""
    text = (
        'argocd_kubectl_exec_total{command="apply",hostname="a"} 30\n'
        'argocd_app_sync_total{dry_run="false",name="indexes",phase="Succeeded"} 2\n'
        'argocd_app_sync_total{dry_run="false",name="indexes",phase="Failed"} 1\n'
        'argocd_app_k8s_request_total{dry_run="false",name="indexes",verb="Get"} 7\n'
    )

    with answering(lambda exchange: exchange.answer(200, text)) as url:
        counted = ArgoCD(None, Path(), metrics_url=url).applied()  # type: ignore[arg-type]

    assert counted == {"kubectl_exec apply": 30, "app_sync indexes": 3}


# ---------------------------------------------------------------- how long


def change(at: float, kind: str = "pods", says: str = "", what: str = "MODIFIED") -> Change:
    return Change(at, kind, "search", "a", what, ("kubelet",), says)


def test_rest_ends_with_the_first_write_and_neither_a_lease_nor_the_end_of_an_event_is_one() -> None:
    changes = [change(900.0), change(1030.0, "leases"), change(1040.0, "events", what="DELETED"), change(1060.0)]
    looks = [change(1090.0, says="Synced/Healthy")]
    assert disturbances(changes, looks, 1000.0) == [(1.0, "MODIFIED pods search/a by kubelet")]

    rest = Rest(1000.0, 1600.0, disturbances(changes, looks, 1000.0))
    assert (rest.minutes, rest.minutes_at_rest) == (10.0, 1.0)
    assert Rest(1000.0, 1600.0).minutes_at_rest == 10.0


def test_rest_ends_where_an_application_is_not_synced_and_healthy() -> None:
    looks = [change(1090.0, says="Synced/Healthy"), change(1120.0, says="OutOfSync/Healthy")]
    assert disturbances([], looks, 1000.0) == [(2.0, "a is OutOfSync/Healthy")]


def test_the_page_says_what_ended_the_rest() -> None:
    told = page(Rest(0.0, 3600.0, [(3.04, "MODIFIED pods search/a by kubelet")]), None)
    assert "| minutes Synced and Healthy without a write | 3.0 |" in told
    assert "| 3.0 | MODIFIED pods search/a by kubelet |" in told
    assert "guardrail" not in told
