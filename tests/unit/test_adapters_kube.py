"""The cluster port against a small HTTP server: what is asked, and what each answer becomes."""

from __future__ import annotations

import json
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from http_stub import Exchange, answering
from kubernetes import client
from ports import held

from vectorindex_operator.adapters.events import KubeEvents
from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.adapters.second_tries import SecondTries
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.reconcile.errors import (
    ClusterError,
    ConflictError,
    InvalidError,
    NamespaceTerminatingError,
    RefusedError,
    UnreachableError,
)

Json = dict[str, Any]
WRITTEN = {"fieldManager": "vectorindex-operator", "fieldValidation": "Strict", "timeout": "20000ms"}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "team-a", "name": "docs-1"}}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """Answers the next of `answers` (status, body as text or JSON); keeps what it was asked."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def answer(self, *answers: tuple[int, Any]) -> None:
        self.answers, self.asked = list(answers), []


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Server, str]]:
    state = Server()

    def answer(to: Exchange) -> None:
        parts = urlsplit(to.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        state.asked.append(Request(to.command, parts.path, query, dict(to.headers), to.body()))
        status, said = state.answers.pop(0)
        if status == 0:  # cut the connection
            to.close_connection = True
        else:
            to.answer(status, said)

    with answering(answer) as url:
        yield state, url


def connect(url: str) -> KubeCluster:
    configuration = client.Configuration(host=url)
    configuration.api_key = {"authorization": "Bearer secret-token"}
    return KubeCluster(client.ApiClient(configuration), second_tries=SecondTries(saved=0.0, earned=0.0))


@pytest.fixture
def server(endpoint: tuple[Server, str]) -> Server:
    endpoint[0].answer()
    return endpoint[0]


@pytest.fixture
def cluster(endpoint: tuple[Server, str]) -> Iterator[KubeCluster]:
    one = connect(endpoint[1])
    yield one
    one.api.rest_client.pool_manager.clear()
    one.api.close()


# ---------------------------------------------------------------- what is asked


def test_apply_is_a_forced_strict_server_side_apply_by_one_field_manager(server: Server, cluster: KubeCluster) -> None:
    server.answer((200, {"metadata": {"uid": "1"}}))
    assert cluster.apply(JOB) == {"metadata": {"uid": "1"}}
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("PATCH", "/apis/batch/v1/namespaces/team-a/jobs/docs-1")
    assert asked.query == {**WRITTEN, "force": "true"}
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"
    assert asked.headers["authorization"] == "Bearer secret-token"
    assert asked.body == JOB


def test_a_status_is_applied_to_its_subresource(server: Server, cluster: KubeCluster) -> None:
    meta = {"namespace": "team-a", "name": "docs", "resourceVersion": "7"}
    server.answer((200, {}))
    cluster.apply_status({"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": meta})
    (asked,) = server.asked
    assert asked.path == "/apis/vectorindex.dev/v1alpha1/namespaces/team-a/vectorindexes/docs/status"
    assert asked.body["metadata"]["resourceVersion"] == "7"


def test_an_unforced_apply_takes_over_nothing(server: Server, cluster: KubeCluster) -> None:
    server.answer((409, {"reason": "Conflict", "message": "Apply failed with 1 conflict"}))
    with pytest.raises(ConflictError):
        cluster.apply(JOB, force=False)
    assert server.asked[0].query["force"] == "false"


def test_a_merge_is_a_json_merge_patch_of_what_is_there(server: Server, cluster: KubeCluster) -> None:
    server.answer((200, {"metadata": {}}), (404, {"reason": "NotFound"}))
    cluster.merge(JOB)
    (asked,) = server.asked
    assert (asked.method, asked.headers["Content-Type"], asked.body) == ("PATCH", "application/merge-patch+json", JOB)
    assert asked.query == WRITTEN
    with pytest.raises(ConflictError, match="Job/docs-1 is gone"):
        cluster.merge(JOB)


def test_what_was_created_is_taken_over_as_applied(server: Server, cluster: KubeCluster) -> None:
    ours = {"manager": "vectorindex-operator", "apiVersion": "batch/v1"}
    created = {**ours, "operation": "Update", "fieldsV1": {"f:spec": {"f:a": {}, "f:b": {"f:c": {}}}}}
    applied = {**ours, "operation": "Apply", "fieldsV1": {"f:spec": {"f:b": {"f:d": {}}}}}
    status = {**ours, "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}}
    other = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:x": {}}}}
    live = {
        **JOB,
        "metadata": {**JOB["metadata"], "resourceVersion": "7", "managedFields": [created, applied, status, other]},
    }
    server.answer((200, {"metadata": {"resourceVersion": "8"}}))
    assert cluster.take_over(live) == "8"
    (asked,) = server.asked
    fields, version = asked.body
    assert asked.headers["Content-Type"] == "application/json-patch+json"
    assert version["value"] == "7"
    assert fields["value"][:2] == [status, other]
    (mine,) = fields["value"][2:]
    assert (mine["operation"], mine["fieldsV1"]) == ("Apply", {"f:spec": {"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}})
    server.answer()
    as_is = {**JOB, "metadata": {**JOB["metadata"], "resourceVersion": "7", "managedFields": [applied, status]}}
    assert cluster.take_over(as_is) == "7"
    assert server.asked == []


def test_create_leaves_what_is_there_already(server: Server, cluster: KubeCluster) -> None:
    server.answer((201, {}), (409, {"reason": "AlreadyExists"}))
    assert [cluster.create(JOB), cluster.create(JOB)] == [{}, None]
    assert {(one.method, one.path) for one in server.asked} == {("POST", "/apis/batch/v1/namespaces/team-a/jobs")}
    assert server.asked[0].query == WRITTEN


def test_what_is_judged_is_not_made_and_counts_as_no_write(server: Server, cluster: KubeCluster) -> None:
    written: list[str] = []
    cluster.on_write = written.append
    server.answer((201, {}), (409, {"reason": "AlreadyExists"}), (422, {"reason": "Invalid", "message": "spec.x"}))
    cluster.judge(JOB)
    cluster.judge(JOB)  # an object of that name may be there
    with pytest.raises(InvalidError, match="422 Invalid"):
        cluster.judge(JOB)
    assert {(one.method, one.query.get("dryRun")) for one in server.asked} == {("POST", "All")}
    assert written == []


def test_delete_is_in_the_background_and_only_of_this_uid(server: Server, cluster: KubeCluster) -> None:
    server.answer((200, {}), (404, {}), (409, {"reason": "Conflict"}))
    for _ in range(3):
        cluster.delete("Job", "team-a", "docs-1", "uid-1")
    assert {one.method for one in server.asked} == {"DELETE"}
    assert server.asked[0].body == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}


def test_a_delete_may_be_of_one_version_only(server: Server, cluster: KubeCluster) -> None:
    server.answer((200, {}), (404, {}), (409, {"reason": "Conflict"}))
    for _ in range(2):
        cluster.delete("VectorIndexRevision", "team-a", "docs-1", "uid-1", "7")
    assert server.asked[0].body["preconditions"] == {"uid": "uid-1", "resourceVersion": "7"}
    with pytest.raises(ConflictError):
        cluster.delete("VectorIndexRevision", "team-a", "docs-1", "uid-1", "7")


def test_a_write_ends_before_another_may_hold_the_lease(server: Server, cluster: KubeCluster) -> None:
    """Connecting, and the server's own work after that, together."""
    cluster.seconds_left = lambda: 9.0
    server.answer((201, {}))
    cluster.create(JOB)
    assert server.asked[0].query["timeout"] == "6000ms"


def test_without_the_lease_nothing_is_written_and_all_can_be_read(server: Server, cluster: KubeCluster) -> None:
    cluster.seconds_left = lambda: 0.0
    writes: list[Callable[[], Any]] = [
        lambda: cluster.apply(JOB), lambda: cluster.apply_status(JOB), lambda: cluster.merge(JOB),
        lambda: cluster.create(JOB), lambda: cluster.delete("Job", "team-a", "docs-1", "uid-1"),
    ]  # fmt: skip
    for write in writes:
        with pytest.raises(UnreachableError, match="does not hold the Lease"):
            write()
    assert server.asked == []
    server.answer((200, {"metadata": {}}))
    assert cluster.get("Job", "team-a", "docs-1") is not None
    assert "timeout" not in server.asked[0].query


def test_writes_are_counted_and_reads_are_not(server: Server, cluster: KubeCluster) -> None:
    written: list[str] = []
    cluster.on_write = written.append
    server.answer((200, {}), (200, {}), (201, {}), (200, {}))
    cluster.get("Job", "team-a", "docs-1")
    cluster.apply(JOB)
    cluster.create(JOB)
    cluster.delete("Job", "team-a", "docs-1", "uid-1")
    assert written == ["Job", "Job", "Job"]


def test_a_list_is_read_to_its_last_page_from_a_quorum_with_kinds_filled_in(
    server: Server, cluster: KubeCluster
) -> None:
    def page(token: str, *names: str) -> Json:
        items = [{"metadata": {"name": name}} for name in names]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": token}, "items": items}

    server.answer((200, page("more/=", "a", "b")), (200, page("", "c")))
    pods = cluster.children("Pod", "team-a", "x=y,z=w")
    assert [(pod["apiVersion"], pod["kind"], pod["metadata"]["name"]) for pod in pods] == [
        ("v1", "Pod", "a"), ("v1", "Pod", "b"), ("v1", "Pod", "c"),
    ]  # fmt: skip
    first, second = server.asked
    assert first.path == "/api/v1/namespaces/team-a/pods"
    assert first.query == {"limit": "25", "labelSelector": "x=y,z=w"}  # no resourceVersion: never from a cache
    assert second.query == {**first.query, "continue": "more/="}


def test_pages_of_metadata_of_all_namespaces_or_of_one(server: Server, cluster: KubeCluster) -> None:
    item = {"kind": "PartialObjectMetadata", "metadata": {"namespace": "team-a", "name": "docs"}}
    page: Json = {"apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": [item]}
    server.answer((200, {**page, "metadata": {"continue": "more"}}), (200, page), (200, page))
    everywhere = list(cluster.pages("VectorIndex", "", "", metadata_only=True))
    assert [[(raw["kind"], raw["metadata"]["name"]) for raw in one] for one in everywhere] == [
        [("VectorIndex", "docs")]
    ] * 2
    list(cluster.pages("Job", "team-a", "x=y", metadata_only=True))
    assert [one.path for one in server.asked] == [
        "/apis/vectorindex.dev/v1alpha1/vectorindexes",
        "/apis/vectorindex.dev/v1alpha1/vectorindexes",
        "/apis/batch/v1/namespaces/team-a/jobs",
    ]
    assert {one.headers["Accept"] for one in server.asked} == {
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    }
    assert server.asked[2].query == {"limit": "500", "labelSelector": "x=y"}
    server.answer((200, {**page, "items": None}))
    assert list(cluster.pages("Job", "", "", metadata_only=True)) == [[]]


def test_what_was_created_is_the_answer_and_nothing_when_it_was_there(server: Server, cluster: KubeCluster) -> None:
    server.answer((201, {"metadata": {"uid": "1"}}), (409, {"reason": "AlreadyExists"}))
    assert cluster.create(JOB) == {"metadata": {"uid": "1"}}
    assert cluster.create(JOB) is None


@pytest.mark.parametrize(("status", "kind"), [(403, RefusedError), (422, RefusedError), (503, UnreachableError)])
def test_what_could_not_be_created_is_not_taken_for_there(
    server: Server, cluster: KubeCluster, status: int, kind: type[ClusterError]
) -> None:
    """A quota refuses: nobody would say so, and the Job be waited for."""
    server.answer((status, {"reason": "Because", "message": "of that"}))
    with pytest.raises(kind):
        cluster.create(JOB)


# ---------------------------------------------------------------- what an answer becomes


def test_what_is_not_there_is_none_for_get_and_refused_for_apply(server: Server, cluster: KubeCluster) -> None:
    missing = {"kind": "Status", "reason": "NotFound", "message": 'jobs "docs-1" not found'}
    server.answer((404, missing), (404, missing))
    assert cluster.get("Job", "team-a", "docs-1") is None
    with pytest.raises(RefusedError, match='404 NotFound: jobs "docs-1" not found'):
        cluster.apply(JOB)


def test_the_404_of_a_proxy_is_not_the_absence_of_an_object(server: Server, cluster: KubeCluster) -> None:
    server.answer((404, "404 page not found"))
    with pytest.raises(ClusterError, match="page not found"):
        cluster.get("Service", "team-a", "docs")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (409, ConflictError), (429, UnreachableError), (500, UnreachableError), (503, UnreachableError),
        (400, InvalidError), (401, RefusedError), (403, RefusedError), (422, InvalidError), (410, RefusedError),
    ],
)  # fmt: skip
def test_refusals_and_faults_are_told_apart(
    server: Server, cluster: KubeCluster, status: int, kind: type[ClusterError]
) -> None:
    server.answer((status, {"reason": "Because", "message": "of that"}))
    with pytest.raises(ClusterError, match=f"{status} Because: of that") as caught:
        cluster.apply(JOB)
    assert type(caught.value) is kind


def test_a_namespace_that_terminates_refuses_for_good(server: Server, cluster: KubeCluster) -> None:
    """Told by the cause, never by the words: a quota refuses with the same code, and may be raised."""
    terminates = {"reason": "NamespaceTerminating", "field": "metadata.namespace", "message": "it is being terminated"}
    for causes, kind in (([terminates], NamespaceTerminatingError), ([], RefusedError), (None, RefusedError)):
        server.answer((403, {"reason": "Forbidden", "message": "being terminated", "details": {"causes": causes}}))
        with pytest.raises(RefusedError) as caught:
            cluster.create(JOB)
        assert type(caught.value) is kind


@pytest.mark.parametrize("answer", ["<html>bad gateway</html>", "", '"upstream error"', "[]", "null", "\x00"])
def test_an_answer_that_is_no_object_is_the_servers_fault(server: Server, cluster: KubeCluster, answer: str) -> None:
    """A proxy between us and the API server may say anything with any status."""
    calls: list[Callable[[], object]] = [
        lambda: cluster.get("Job", "team-a", "docs-1"),
        lambda: cluster.children("Job", "team-a", ""),
        lambda: cluster.apply(JOB),
    ]
    for call in calls:
        for status in (200, 502):
            server.answer((status, answer))
            with pytest.raises(UnreachableError):
                call()


def test_a_cut_connection_is_unreachable_and_nothing_is_sent_twice(server: Server, cluster: KubeCluster) -> None:
    server.answer((0, ""), (200, {}))
    with pytest.raises(UnreachableError, match="PATCH /apis/batch/v1"):
        cluster.apply(JOB)
    assert len(server.asked) == 1


def test_a_server_that_never_answers_is_unreachable() -> None:
    with held() as (port,):
        cluster = connect(f"http://127.0.0.1:{port}")
        cluster.seconds = 0.05
        with socket.create_server(("127.0.0.1", port)), pytest.raises(UnreachableError, match="timed out"):
            cluster.get("Job", "team-a", "docs-1")
        cluster.api.rest_client.pool_manager.clear()
        with pytest.raises(UnreachableError, match="refused"):
            cluster.get("Job", "team-a", "docs-1")
    cluster.api.close()


# ---------------------------------------------------------------- Events

ABOUT: Json = {
    "apiVersion": "vectorindex.dev/v1alpha1",
    "kind": "VectorIndex",
    "metadata": {"namespace": "team-a", "name": "docs", "uid": "uid-docs"},
}


def test_an_event_is_about_the_vectorindex_and_fits_the_limits(server: Server, cluster: KubeCluster) -> None:
    server.answer((201, {}))
    KubeEvents(cluster, "operator-" + "x" * 200).send(ABOUT, Event(EventReason.ROLLED_BACK, "m" * 5000, "docs-1"))
    (asked,) = server.asked
    assert asked.path == "/apis/events.k8s.io/v1/namespaces/team-a/events"
    assert (asked.body["type"], asked.body["reason"], asked.body["note"]) == ("Warning", "RolledBack", "m" * 1024)
    assert asked.body["regarding"]["uid"] == "uid-docs"
    assert len(asked.body["reportingInstance"]) == 128


@pytest.mark.parametrize("answer", [(403, {"reason": "Forbidden"}), (500, "oops"), (0, "")])
def test_a_lost_event_loses_nothing_else(server: Server, cluster: KubeCluster, answer: tuple[int, Any]) -> None:
    server.answer(answer)
    KubeEvents(cluster, "operator-1").send(ABOUT, Event(EventReason.STABLE, "stable"))


def test_an_index_that_names_too_many_objects_is_refused_before_they_are_all_read() -> None:
    """Labels are anybody's to write: the operator's memory is not."""
    read = 0

    class Flooded(KubeCluster):
        def _pages(self, *_: Any, **__: Any) -> Iterator[list[Any]]:
            nonlocal read
            for _page in range(1000):
                read += 25
                yield [{"kind": "Pod"}] * 25

    with pytest.raises(RefusedError, match="more than 3000 objects of kind Pod in team-a"):
        Flooded(client.ApiClient()).children("Pod", "team-a", "x=y")
    assert read <= 3025


def test_a_page_is_read_without_its_managed_fields_and_never_holds_all_of_them() -> None:
    """Most of what a relist is told. Before: five times the body."""
    fields = {f"f:{place:04}": {"f:name": {}, "f:value": {}} for place in range(400)}
    meta = {"name": "p", "namespace": "team-a", "uid": "u", "resourceVersion": "1"}
    items = [{"metadata": {**meta, "managedFields": [{"manager": "m", "fieldsV1": fields}]}, "status": {}}] * 200
    body = json.dumps({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
    with answering(lambda exchange: exchange.answer(200, body)) as url:
        kube = connect(url)
        for whole in (True, False):
            next(kube.pages("Pod", "", "", metadata_only=not whole))
            tracemalloc.start()
            page = next(kube.pages("Pod", "", "", metadata_only=not whole))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            print(f"{peak / len(body):.1f} times the body")
            assert peak < 4 * len(body)
            assert page == [{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}}] * 200
        (first, *_) = kube.children("Pod", "team-a", "x=y")
        assert first["metadata"]["managedFields"], "who writes needs them"
