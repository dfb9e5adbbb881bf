"""What an audit log says was asked, and what roles give: the comparison that two layers of tests make."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rights

from harness import audit
from harness.errors import HarnessError, LackingError

AT = "2026-11-01T12:00:{:02}.000000Z"
NOON = 1_793_534_400.0
JOBS = ("batch", "jobs", "create")


def event(
    verb: str, resource: str, group: str = "", *, sub: str = "", code: int = 200, second: int = 0, **more: Any
) -> dict[str, Any]:
    about = {"resource": resource, "apiGroup": group} | ({"subresource": sub} if sub else {})
    user = {"username": "u", "groups": ["system:serviceaccounts:home"]}
    made = {"verb": verb, "objectRef": about, "responseStatus": {"code": code}, "user": user, "requestURI": "/uri"}
    return made | {"requestReceivedTimestamp": AT.format(second)} | more


def test_an_apply_that_makes_its_object_asks_for_the_right_to_create_it() -> None:
    applied = event("patch", "deployments", "apps", code=201)

    assert rights.asked([applied]) == {("apps", "deployments", "patch"), ("apps", "deployments", "create")}
    assert rights.asked([applied | {"responseStatus": {"code": 200}}]) == {("apps", "deployments", "patch")}


def test_a_subresource_is_a_right_of_its_own_and_a_version_is_none() -> None:
    about_nothing = {"verb": "get", "requestURI": "/version"}

    assert rights.asked([event("patch", "vectorindexes", "vectorindex.dev", sub="status"), about_nothing]) == {
        ("vectorindex.dev", "vectorindexes/status", "patch")
    }


def test_refused_is_what_the_authorizer_forbids_and_not_what_a_quota_does() -> None:
    forbidden = {"annotations": {"authorization.k8s.io/decision": "forbid"}}
    allowed = {"annotations": {"authorization.k8s.io/decision": "allow"}}

    assert set(rights.refused([event("create", "jobs", "batch", code=403, **forbidden)])) == {JOBS}
    assert rights.refused([event("create", "jobs", "batch", code=403, **allowed)]) == {}
    assert set(rights.refused([event("create", "jobs", "batch", code=401)])) == {JOBS}


def test_granted_are_the_rules_of_roles_that_a_service_account_has() -> None:
    def role(name: str, resource: str) -> dict[str, Any]:
        rules = [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
        return {"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}

    bound = {"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "ours"}}
    objects = [role("ours", "pods"), role("of-users", "secrets"), bound | {"subjects": [{"kind": "ServiceAccount"}]}]

    assert rights.granted(objects) == {("", "pods", "get")}


def test_what_another_code_asked_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rights" / "apiserver.json"
    assert rights.remembered(file) is None
    rights.remember({JOBS}, file)
    assert rights.remembered(file) == {JOBS}
    monkeypatch.setattr(rights.images, "content_tag", lambda: "dev-of-tomorrow")
    assert rights.remembered(file) is None


def cluster(log: Path | None) -> Any:
    return SimpleNamespace(name="some", audit_log=log, audit_backups=1)


def write(file: Path, *events: dict[str, Any], torn: str = "") -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in events) + torn)


def test_a_rotated_log_is_read_before_the_one_that_grows(tmp_path: Path) -> None:
    log, others = tmp_path / "audit.log", {"user": {"groups": ["system:serviceaccounts:elsewhere"]}}
    write(tmp_path / "audit-2026-11-01T12-00-05.000.log", event("list", "pods", second=1), event("watch", "pods"))
    write(log, event("get", "pods", second=7), event("list", "nodes", second=8, **others), torn='{"verb": "del')

    seen = audit.events(cluster(log), "home", NOON + 1)

    assert [one["verb"] for one in seen] == ["list", "get"]


def test_a_log_that_lost_its_beginning_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "audit-2026-11-01T12-00-05.000.log", event("list", "pods", second=4))
    write(tmp_path / "audit.log", event("get", "pods", second=7))

    with pytest.raises(HarnessError, match="AUDIT_BACKUPS"):
        audit.events(cluster(tmp_path / "audit.log"), "home", NOON + 1)


def test_a_cluster_without_an_audit_log_says_so() -> None:
    with pytest.raises(LackingError, match="CLUSTER=local"):
        audit.events(cluster(None), "home", NOON)
