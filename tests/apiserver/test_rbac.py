"""The rights that the chart gives: enough for the operator's work, and no more. Decided by a real API server.

The roles come from a real `helm template`; requests are made as the chart's ServiceAccount. What the operator needs is
read from the API server's audit log in test_rights.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from chart import HOME, of_kind, render
from control_plane import Api, Json, path_of

ALL = ("get", "list", "watch", "create", "patch", "delete")
READ = ("get", "list", "watch")
VIX = "vectorindex.dev"

FORBIDDEN = [
    *(("", "secrets", verb) for verb in (*ALL, "update")),
    *(("", "configmaps", verb) for verb in (*ALL, "update")),
    *((VIX, "vectorindexes", verb) for verb in ("create", "update", "patch", "delete", "deletecollection")),
    (VIX, "vectorindexes/scale", "patch"),
    (VIX, "vectorindexrevisions", "update"),
    *(("batch", "jobs", verb) for verb in ("patch", "update")),
    ("", "services", "delete"),
    ("", "pods", "get"),
    ("", "pods", "create"),
    ("", "pods", "delete"),
    ("", "pods/exec", "create"),
    ("", "pods/exec", "get"),
    ("", "pods/log", "get"),
    ("", "pods/ephemeralcontainers", "patch"),
    ("", "serviceaccounts/token", "create"),
    ("", "serviceaccounts", "impersonate"),
    ("", "nodes", "list"),
    ("", "namespaces", "list"),
    ("", "persistentvolumeclaims", "get"),
    ("apps", "daemonsets", "create"),
    ("batch", "cronjobs", "create"),
    ("apps", "deployments", "deletecollection"),
    ("coordination.k8s.io", "leases", "get"),
    ("rbac.authorization.k8s.io", "roles", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "list"),
]


@dataclass(frozen=True, slots=True)
class Installed:
    """The operator's ServiceAccount as the chart made it, and who may ask about its rights."""

    operator: Api
    admin: Api

    def may(self, group: str, resource: str, verb: str, namespace: str = "default", name: str = "") -> bool:
        return may(self.admin, self.operator, group, resource, verb, namespace, name)


def may(admin: Api, who: Api, group: str, resource: str, verb: str, namespace: str = "default", name: str = "") -> bool:
    """Whether the API server's authorizer lets `who` do it."""
    plain, _, sub = resource.partition("/")
    attributes = {"group": group, "resource": plain, "subresource": sub, "verb": verb, "namespace": namespace}
    spec = {"user": who.as_user, "groups": list(who.as_groups), "resourceAttributes": attributes | {"name": name}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.ok, answer.message
    return bool(answer.body["status"]["allowed"])


def install(api: Api, *settings: str, release: str = "operator") -> Installed:
    """Put the chart's ServiceAccount and roles into the API server, and wait until its authorizer has seen them."""
    ensure_namespace(api, HOME)
    account = ""
    for manifest in render(*settings, release=release):
        if manifest["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
            answer = api.apply(manifest, "helm", force=True)
            assert answer.ok, answer.message
        if manifest["kind"] == "ServiceAccount":
            account = manifest["metadata"]["name"]
    out = Installed(api.service_account(HOME, account), api)
    deadline = time.monotonic() + 10
    while not out.may("coordination.k8s.io", "leases", "update", HOME, "vectorindex-operator"):
        assert time.monotonic() < deadline, "the authorizer never saw the roles"
        time.sleep(0.05)
    return out


def ensure_namespace(api: Api, name: str) -> None:
    answer = api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert answer.ok, answer.message


def granted(*settings: str, kind: str, name: str) -> set[tuple[str, str, str]]:
    """Group, resource and verb of every rule of the role whose name ends so."""
    (role,) = [one for one in of_kind(render(*settings), kind) if one["metadata"]["name"].endswith(name)]
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def everywhere(api: Api) -> Installed:
    return install(api)


@pytest.fixture(scope="module")
def in_two(api: Api) -> Installed:
    for namespace in ("team-a", "team-b", "team-c"):
        ensure_namespace(api, namespace)
    return install(api, "watchNamespaces={team-a,team-b}", release="narrow")


@pytest.mark.parametrize(("group", "resource", "verb"), FORBIDDEN)
def test_the_operator_may_do_nothing_else(everywhere: Installed, group: str, resource: str, verb: str) -> None:
    assert not everywhere.may(group, resource, verb)
    assert not everywhere.may(group, resource, verb, HOME)


def test_with_namespaces_named_it_works_only_there(in_two: Installed) -> None:
    for group, resource, verb in granted("watchNamespaces={team-a}", kind="Role", name="vectorindex-operator"):
        assert in_two.may(group, resource, verb, "team-a")
        assert in_two.may(group, resource, verb, "team-b")
        assert not in_two.may(group, resource, verb, "team-c")
        assert not in_two.may(group, resource, verb, "")


def test_no_role_has_a_wildcard() -> None:
    for manifest in render("watchNamespaces={team-a}") + render():
        for rule in manifest.get("rules", ()) if manifest["kind"].endswith("Role") else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], manifest["metadata"]["name"]


def test_the_lease_is_one_and_at_home(everywhere: Installed) -> None:
    for verb in ("get", "update"):
        assert everywhere.may("coordination.k8s.io", "leases", verb, HOME, "vectorindex-operator")
        assert not everywhere.may("coordination.k8s.io", "leases", verb, HOME, "another")
        assert not everywhere.may("coordination.k8s.io", "leases", verb, "default", "vectorindex-operator")
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "vectorindex-operator", "namespace": HOME},
        "spec": {"holderIdentity": "pod-1", "leaseDurationSeconds": 15},
    }
    collection = path_of(lease).rpartition("/")[0]
    everywhere.admin.delete(lease)
    created = everywhere.operator.request("POST", collection, lease)
    assert created.ok, created.message
    assert everywhere.operator.request("PUT", path_of(lease), created.body).ok


def test_real_requests_say_the_same(everywhere: Installed, api: Api, smallest: Json) -> None:
    operator = everywhere.operator
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {"key": "value"}}
    assert api.apply(secret).ok
    refused = operator.get("/api/v1/namespaces/default/secrets/s3")
    assert (refused.status, "value" in str(refused.body)) == (403, False)
    assert operator.get("/api/v1/secrets").status == 403

    assert api.apply(smallest).ok
    assert operator.get(path_of(smallest)).ok
    spec: Any = {"spec": {"searcher": {"replicas": 5}}}
    assert operator.apply(smallest | spec, "vectorindex-operator", force=True).status == 403
    merge = "application/merge-patch+json"
    assert operator.request("PATCH", path_of(smallest), {"metadata": {"annotations": {"a": "b"}}}, merge).status == 403
    assert operator.request("DELETE", path_of(smallest)).status == 403
    through_status = smallest | spec | {"status": {"phase": "Ready"}}
    through_status["spec"] = smallest["spec"] | spec["spec"]
    written = operator.apply(through_status, "vectorindex-operator", subresource="status", force=True)
    assert written.ok, written.message
    assert written.body["status"]["phase"] == "Ready"
    assert written.body["spec"]["searcher"]["replicas"] == 2, "the spec is out of reach even through /status"


@pytest.mark.parametrize(
    ("role", "resource", "verbs"),
    [
        ("view", "vectorindexes", set(READ)),
        ("view", "vectorindexrevisions", set(READ)),
        ("edit", "vectorindexes", {"create", "update", "patch", "delete"}),
        ("edit", "vectorindexes/scale", {"update", "patch"}),
        ("edit", "vectorindexrevisions", set()),
        ("admin", "vectorindexrevisions", {"delete"}),
    ],
)
def test_users_get_rights_through_the_roles_they_have(
    everywhere: Installed, api: Api, role: str, resource: str, verbs: set[str]
) -> None:
    """No controller aggregates here: the role that would be aggregated is bound by itself, its labels are read."""
    labels = api.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/operator-vectorindex-operator-{role}").body
    wider = {"view": ("view", "edit", "admin"), "edit": ("edit", "admin"), "admin": ("admin",)}[role]
    for one in ("view", "edit", "admin"):
        label = labels["metadata"]["labels"].get(f"rbac.authorization.k8s.io/aggregate-to-{one}")
        assert (label == "true") == (one in wider)
    user = api.impersonate(f"{role}er", "system:authenticated")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{role}ers", "namespace": "default"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": labels["metadata"]["name"],
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.as_user}],
    }
    assert api.apply(binding).ok
    asked = (*READ, "create", "update", "patch", "delete")
    deadline = time.monotonic() + 5
    allowed: set[str] = set()
    while allowed != verbs and time.monotonic() < deadline:
        allowed = {verb for verb in asked if may(api, user, VIX, resource, verb)}
    assert allowed == verbs
    assert not may(api, user, "", "secrets", "get")
