"""`kubectl vectorindex` against a real API server, as somebody with few rights and a kubeconfig of their own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from control_plane import Api, ControlPlane, Json
from recorded import Recorded
from waiting import until

from vectorindex_operator.reconcile.errors import RefusedError
from vectorindex_plugin import cluster
from vectorindex_plugin.app import run
from vectorindex_plugin.exits import Exit
from vectorindex_plugin.verbs.browse import looks_of
from vectorindex_plugin.verbs.common import Session

PERSON = "person"
RBAC = "rbac.authorization.k8s.io"
READS: list[Json] = [
    {"apiGroups": ["vectorindex.dev"], "resources": ["vectorindexes"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["vectorindex.dev"], "resources": ["vectorindexrevisions"], "verbs": ["get", "list"]},
]
"""What docs/plugin.md says that one needs."""
Say = Callable[..., tuple[int, Any]]


@pytest.fixture
def kubeconfig(api: Api, control_plane: ControlPlane) -> Path:
    """Of a person who may do what the plugin cannot do without."""
    meta = {"name": PERSON, "namespace": "default"}
    subject = {"kind": "ServiceAccount", "name": PERSON, "namespace": "default"}
    for one in (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": READS},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": PERSON},
            "subjects": [subject],
        },
    ):
        answer = api.apply(one, manager="test")
        assert answer.ok, answer.message
    return control_plane.kubeconfig("default", PERSON)


@pytest.fixture
def say(kubeconfig: Path) -> Say:
    def run_there(*words: str) -> tuple[int, Any]:
        with redirect_stdout(io.StringIO()) as out:
            status = run([*words, "--kubeconfig", str(kubeconfig), "-o", "json"])
        return status, json.loads(out.getvalue() or "null")

    return run_there


def put(api: Api, moment: str, name: str) -> list[str]:
    """Recorded objects under another name, as their writers write them; answers the names of the revisions."""
    found = Recorded.at(moment).objects
    (index,) = (one for one in found if one["kind"] == "VectorIndex")
    uid = written(api, index, {"name": name, "namespace": "default"}, index["spec"])
    names = []
    for one in found:
        if one["kind"] != "VectorIndexRevision":
            continue
        names.append(one["metadata"]["name"].replace("products", name))
        meta = {
            "name": names[-1],
            "namespace": "default",
            "labels": one["metadata"]["labels"] | {"vectorindex.dev/index": name},
            "ownerReferences": [{**one["metadata"]["ownerReferences"][0], "name": name, "uid": uid}],
        }
        written(api, one, meta, one["spec"])
    return names


def written(api: Api, recorded: Json, meta: Json, spec: Json) -> str:
    """The object and its status; answers its uid."""
    head = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": recorded["kind"], "metadata": meta}
    answer = api.apply(head | {"spec": spec}, "vectorindex-operator")
    assert answer.ok, answer.message
    status = api.apply(head | {"status": recorded["status"]}, "vectorindex-operator", subresource="status")
    assert status.ok, status.message
    return str(answer.body["metadata"]["uid"])


def test_what_is_there_is_seen(api: Api, name: str, say: Say) -> None:
    names = put(api, "rejected", name)
    assert name in {row["name"] for row in say("list")[1]}
    status, facts = say("get", name)
    assert (status, facts["phase"], facts["reason"]) == (Exit.DONE, "Rejected", "RecallBelowMin")
    assert "Pod" in facts["hidden"], "who may not list pods is told so"
    assert "forbidden" in facts["hidden"]["Pod"]
    assert say("why", name)[1]["what"] == "Rejected"
    assert len(say("history", name)[1]) == 2
    changes = say("diff", *names)[1]["changes"]
    assert "index.factory" in {one["name"] for one in changes}
    assert say("get", "nobody")[0] == Exit.NOT_FOUND


def test_what_is_asked_is_written_and_waits_for_its_answer(api: Api, name: str, say: Say, smallest: Json) -> None:
    assert api.apply(smallest).ok
    path = f"/apis/vectorindex.dev/v1alpha1/namespaces/default/vectorindexes/{name}"
    assert say("rollback", name, "--timeout", "0.1")[0] == Exit.NO_ANSWER
    status, told = say("rollback", name, f"{name}-1a2b3c4d", "--no-wait")
    assert status == Exit.DONE
    live = api.get(path).body
    assert live["metadata"]["annotations"]["vectorindex.dev/rollback"] == f"{name}-1a2b3c4d@{told['nonce']}"
    assert "kubectl-vectorindex" in {one["manager"] for one in live["metadata"]["managedFields"]}
    say("suspend", name, "--no-wait")
    assert api.get(path).body["spec"]["suspend"] is True
    say("pin", name, f"{name}-1a2b3c4d", "--no-wait")
    say("unsuspend", name, "--no-wait")
    spec = api.get(path).body["spec"]
    assert (spec["suspend"], spec["pinRevision"]) == (False, f"{name}-1a2b3c4d")
    assert say("retry", "nobody")[0] == Exit.NOT_FOUND
    assert say("pin", name, "No Name")[0] == Exit.UNREACHABLE, "the API server refuses it"


def test_who_may_not_ask_is_told_by_the_api_server(api: Api, name: str, say: Say, smallest: Json, capsys: Any) -> None:
    assert api.apply(smallest).ok
    assert say("list", "-n", "kube-system")[0] == Exit.UNREACHABLE
    assert "forbidden" in capsys.readouterr().err


def test_a_plan_of_an_edit(api: Api, name: str, say: Say, smallest: Json, tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(smallest))
    first = say("plan", str(file))[1][0]
    assert first["new"]
    assert any(note.startswith("ResourceQuotas may not be read") for note in first["notes"])
    assert api.apply(smallest).ok
    assert not say("plan", str(file))[1][0]["new"]


def test_a_plan_reads_the_quotas_of_who_may(
    api: Api, name: str, kubeconfig: Path, say: Say, smallest: Json, tmp_path: Path
) -> None:
    meta = {"name": PERSON, "namespace": "default"}
    also = [*READS, {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["list"]}]
    hard = {"hard": {"requests.memory": "1Mi"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": hard}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(smallest))
    assert api.apply({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": also}, manager="test").ok
    assert api.apply(quota).ok
    try:
        found = say("plan", str(file))[1][0]
    finally:
        assert api.delete(quota).ok
    assert found["quotas"] == [{"name": PERSON, "lacks": []}], "nobody has counted yet what is used"


def test_what_the_dashboard_reads(api: Api, name: str, kubeconfig: Path) -> None:
    """With the rights of `get` all but Events; with theirs, those of this index and of no other."""
    put(api, "rejected", name)
    hands, namespace = cluster.connect(str(kubeconfig), None)
    looks = looks_of(Session(hands, namespace, "json"), all_namespaces=False)
    (row,) = [one for one in looks.board()["rows"] if one["row"]["name"] == name]
    assert (row["row"]["phase"], len(row["dots"])) == ("Rejected", 2)
    assert "forbidden" in looks.index(namespace, name)["index"]["hidden"]["Event"]

    more: list[Json] = [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    meta = {"name": PERSON, "namespace": "default"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": [*READS, *more]}
    assert api.apply(role, manager="test").ok
    person = cast("cluster.Eyes", hands)
    for other in (name, f"{name}-other"):
        event(api, other)
    found = until(lambda: allowed(lambda: person.events(namespace, name)))
    assert [one["note"] for one in found] == [f"of {name}"]
    with pytest.raises(RefusedError, match="not found"):
        person.words(namespace, "nobody")


def allowed(ask: Callable[[], Any]) -> Any:
    """None while the rights that were just given are not there yet."""
    try:
        return ask()
    except RefusedError:
        return None


def event(api: Api, name: str) -> None:
    """As the operator writes it (adapters/events.py)."""
    body = {
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "default", "name": f"{name}.1"},
        "eventTime": "2027-01-15T08:00:00.000000Z", "type": "Normal", "reason": "Stable", "action": "Stable",
        "regarding": {"kind": "VectorIndex", "namespace": "default", "name": name}, "note": f"of {name}",
        "reportingController": "vectorindex.dev/operator", "reportingInstance": "test",
    }  # fmt: skip
    assert api.request("POST", "/apis/events.k8s.io/v1/namespaces/default/events", body).ok


def test_kubectl_finds_it(control_plane: ControlPlane, kubeconfig: Path) -> None:
    """As a plugin, by the name of its program on the PATH."""
    command = [str(control_plane.kubernetes), "kubectl", "vectorindex", "list", f"--kubeconfig={kubeconfig}"]
    environment = {"PATH": str(Path(sys.executable).parent), "HOME": str(control_plane.folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NAME")
