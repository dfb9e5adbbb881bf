"""The faults of the chaos layer themselves: which request a rule meets."""

from __future__ import annotations

import pytest
from chaos.rules import CONFLICT, WRITES, Asked, Rule, read_request

JOB = "/apis/batch/v1/namespaces/ns/jobs"


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "asked"),
    [
        ("GET", "/api/v1/pods", {}, b"", Asked("list", "pods")),
        ("GET", "/api/v1/pods", {"watch": "true"}, b"", Asked("watch", "pods")),
        ("GET", "/api/v1/namespaces/ns", {}, b"", Asked("get", "namespaces", "", "ns")),
        ("GET", f"{JOB}/a", {}, b"", Asked("get", "jobs", "ns", "a")),
        ("POST", JOB, {}, b'{"metadata": {"name": "a"}}', Asked("create", "jobs", "ns", "a")),
        ("PATCH", f"{JOB}/a/status", {}, b"{}", Asked("patch", "jobs/status", "ns", "a")),
        ("DELETE", f"{JOB}/a", {}, b"{}", Asked("delete", "jobs", "ns", "a")),
    ],
)
def test_a_request_is_read_as_an_audit_log_tells_of_it(
    method: str, path: str, query: dict[str, str], body: bytes, asked: Asked
) -> None:
    assert read_request(method, path, query, body) == asked


def test_a_rule_counts_what_is_for_it_and_leaves_leases_alone() -> None:
    rule = Rule(CONFLICT, WRITES, namespaces=frozenset({"ns"}), first=2, last=3)
    others = [Asked("get", "jobs", "ns"), Asked("patch", "leases", "ns"), Asked("patch", "jobs", "other")]

    assert not any(map(rule.meets, others))
    assert [rule.meets(Asked("patch", "jobs", "ns")) for _ in range(4)] == [False, True, True, False]
    assert rule.met == 2
    assert Rule(CONFLICT, resources=frozenset({"leases"})).meets(others[1])


def test_a_share_of_requests_is_met_and_the_same_ones_in_each_run() -> None:
    first, again = ([rule.meets(Asked("patch", "jobs")) for _ in range(1000)] for rule in (_tenth(), _tenth()))

    assert 50 < sum(first) < 200
    assert again == first


def _tenth() -> Rule:
    return Rule(CONFLICT, share=0.1)
