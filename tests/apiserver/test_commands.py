"""Whether a command needs a right of its own, decided by a real API server for two users."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from chart import of_kind, render
from control_plane import Api, Json

from vectorindex_operator.core.commands import COMMANDS, NOT_COMMANDS

NAMESPACE = "commanded"
LEAST: Json = {"source": {"s3": {"bucket": "vectors"}}, "artifacts": {"s3": {"bucket": "indexes"}}}
EDIT: Json = {"apiGroups": ["vectorindex.dev"], "resources": ["vectorindexes"]}
VERBS = ["get", "create", "update", "patch"]


def vix(name: str, *, replicas: int = 2, **annotations: str) -> Json:
    meta: Json = {"name": name, "namespace": NAMESPACE}
    marks = {f"vectorindex.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "vectorindex.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": meta | ({"annotations": marks} if marks else {}),
        "spec": LEAST | {"searcher": {"replicas": replicas}},
    }


def bound(api: Api, role: str, user: str) -> None:
    manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{role}-{user}", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert api.apply(manifest).ok


@pytest.fixture(scope="module")
def users(control_plane: Any) -> Iterator[tuple[Api, Api]]:
    """Who may edit, and who may command as well, where the policy is in force."""
    api: Api = control_plane.api
    assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).ok
    rendered = render("commands.needRight=true")
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole")
    made = [one for kind in kinds for one in of_kind(rendered, kind) if one["metadata"]["name"].endswith("-commands")]
    assert len(made) == 3
    rule = EDIT | {"verbs": VERBS}
    editor = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "vix-editor"}}
    for manifest in (*made, editor | {"rules": [rule]}):
        answer = api.apply(manifest, "helm")
        assert answer.ok, answer.message
    for user in ("editor", "oncall"):
        bound(api, "vix-editor", user)
    bound(api, made[-1]["metadata"]["name"], "oncall")
    one, other = api.impersonate("editor"), api.impersonate("oncall")
    deadline = time.monotonic() + 60  # the API server takes up a new policy some time after it is stored
    while one.apply(vix("probe", rollback="1"), dryRun="All").ok:
        assert time.monotonic() < deadline, "the policy never came into force"
        time.sleep(0.1)
    yield one, other
    for manifest in made:
        assert api.delete(manifest).ok


@pytest.mark.parametrize("command", [*COMMANDS, "of-tomorrow"])
def test_a_command_needs_its_right(users: tuple[Api, Api], name: str, command: str) -> None:
    editor, oncall = users
    assert editor.apply(vix(name)).ok
    asked = vix(name)
    asked["metadata"]["annotations"] = {f"vectorindex.dev/{command}": "1"}
    refused = editor.apply(asked)
    assert refused.status in (403, 422)
    assert f"needs the verb 'command' on vectorindexes/{name} in {NAMESPACE}" in refused.message
    assert oncall.apply(asked, "oncall").ok


def test_an_editor_may_do_all_else(users: tuple[Api, Api], name: str) -> None:
    """Also on an object that carries commands of others: they are as they were."""
    editor, oncall = users
    assert editor.apply(vix(name, replicas=3)).ok
    assert oncall.apply(vix(name, rollback="1", retry="1"), "oncall", force=True).ok
    path = f"/apis/vectorindex.dev/v1alpha1/namespaces/{NAMESPACE}/vectorindexes/{name}"

    def patch(**metadata: Any) -> Any:
        return editor.request("PATCH", path, {"metadata": metadata}, "application/merge-patch+json")

    scaled = editor.request("PATCH", path, {"spec": {"searcher": {"replicas": 5}}}, "application/merge-patch+json")
    assert scaled.ok, scaled.message
    for kept in NOT_COMMANDS:
        assert patch(annotations={f"vectorindex.dev/{kept}": "x"}).ok
    assert patch(annotations={"team": "search"}, labels={"a": "b"}).ok
    assert not patch(annotations={"vectorindex.dev/rollback": "2"}).ok, "another nonce is another command"
    assert patch(annotations={"vectorindex.dev/retry": None}).ok, "to take one away asks for nothing"
    assert not patch(annotations={"vectorindex.dev/retry": "1"}).ok


def test_a_command_may_come_with_a_new_object(users: tuple[Api, Api], name: str) -> None:
    editor, oncall = users
    assert not editor.apply(vix(name, pause="1")).ok
    assert oncall.apply(vix(name, pause="1")).ok


def test_the_right_may_be_for_one_index(users: tuple[Api, Api], control_plane: Any, name: str) -> None:
    api, editor = control_plane.api, users[0]
    rule = EDIT | {"verbs": ["command"], "resourceNames": [name]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    assert api.apply(role | {"rules": [rule]}).ok
    bound(api, name, "editor")
    deadline = time.monotonic() + 30
    while not editor.apply(vix(name, rollback="1")).ok:
        assert time.monotonic() < deadline, "the binding never came into force"
        time.sleep(0.1)
    assert not editor.apply(vix(f"{name}-other", rollback="1")).ok


def test_it_is_off_by_default_and_no_role_has_the_verb() -> None:
    rendered = render()
    assert not of_kind(rendered, "ValidatingAdmissionPolicy")
    rules = [rule for role in of_kind(rendered, "ClusterRole") for rule in role["rules"]]
    assert not [rule for rule in rules if "command" in rule["verbs"]]
