"""The chart's scripts in Argo CD's own code, and kstatus's: what the unit tests say of them holds there, too."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from argo_states import STATES, disabled, health_of
from kstatus import kstatus
from layers import program

from argocd_files import ARGOCD, KIND
from vectorindex_operator.core.commands import COMMANDS
from vectorindex_plugin.lint.check import index_schema
from vectorindex_plugin.lint.schema import with_defaults

Json = dict[str, Any]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def ask(*questions: Json) -> list[Json]:
    """What Argo CD and kstatus say; its own log is thrown away."""
    command = [str(program("gitops", "argocd-scripts")), str(ARGOCD / "argocd-cm.yaml")]
    done = subprocess.run(command, input=json.dumps(questions), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: list[Json] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def objects() -> dict[str, Json]:
    return {name: yaml.safe_load((KIND / one.path).read_text(encoding="utf-8")) for name, one in STATES.items()}


@pytest.fixture(scope="module")
def answers(objects: dict[str, Json]) -> dict[str, Json]:
    said = ask(*({"object": one, "git": None} for one in objects.values()))
    return dict(zip(objects, said, strict=True))


@pytest.mark.parametrize("name", STATES)
def test_health_is_what_the_state_says(name: str, objects: dict[str, Json], answers: dict[str, Json]) -> None:
    assert answers[name]["health"] == health_of(objects[name])
    assert answers[name]["health"]["status"] == STATES[name].health


@pytest.mark.parametrize("name", STATES)
def test_kstatus_is_what_the_state_says(name: str, objects: dict[str, Json], answers: dict[str, Json]) -> None:
    assert answers[name]["kstatus"] == STATES[name].kstatus == kstatus(objects[name])


@pytest.mark.parametrize("name", STATES)
def test_actions_are_offered_where_they_apply(name: str, objects: dict[str, Json], answers: dict[str, Json]) -> None:
    offered = {one["name"]: one.get("disabled", False) for one in answers[name]["actions"]}
    assert offered == disabled(objects[name])


@pytest.mark.parametrize("name", STATES)
def test_an_action_sends_its_annotation_and_nothing_else(name: str, answers: dict[str, Json]) -> None:
    for action in COMMANDS:
        patch = copy.deepcopy(answers[name]["patches"][action])
        nonce = patch["metadata"]["annotations"].pop(f"vectorindex.dev/{action}")
        assert nonce.startswith("argocd-")
        assert patch == {"metadata": {"annotations": {}}}, action


# ---------------------------------------------------------------- what self-heal would see


def in_git(objects: dict[str, Json], **spec: Any) -> Json:
    """A manifest as people keep it: nothing of what the API server adds."""
    at_rest = objects["at_rest"]
    meta = {name: at_rest["metadata"][name] for name in ("name", "namespace")}
    return {
        "apiVersion": at_rest["apiVersion"],
        "kind": "VectorIndex",
        "metadata": meta,
        "spec": at_rest["spec"] | spec,
    }


def applied(manifest: Json, status: Json, annotations: Sequence[tuple[str, str]] = ()) -> Json:
    """What the API server holds of a manifest that Argo CD applied: with defaults, and the operator's status."""
    stored: Json = with_defaults(manifest, index_schema())
    meta = {LAST_APPLIED: json.dumps(manifest), **dict(annotations)}
    return {**stored, "metadata": {**manifest["metadata"], "generation": 1, "annotations": meta}, "status": status}


def out_of_sync(manifest: Json, live: Json) -> bool:
    (said,) = ask({"object": live, "git": manifest})
    return bool(said["outOfSync"])


WHOLE_RULE = {
    "name": "zero", "metric": "ZeroResultRate", "max": "5%", "segment": "", "warmUp": "1m", "minSamples": 200,
    "consecutive": 2, "mode": "Enforce", "onNoData": "Hold",
}  # fmt: skip


def test_defaults_outside_of_lists_are_no_difference(objects: dict[str, Json]) -> None:
    manifest = in_git(objects, guardrails={"rules": [WHOLE_RULE]}, searcher={"replicas": 2})
    assert not out_of_sync(manifest, applied(manifest, objects["at_rest"]["status"]))


def test_what_an_action_wrote_is_no_difference(objects: dict[str, Json]) -> None:
    manifest = in_git(objects, guardrails={"rules": [WHOLE_RULE]}, searcher={"replicas": 2})
    marks = [(f"vectorindex.dev/{action}", "argocd-1795834679") for action in COMMANDS]
    assert not out_of_sync(manifest, applied(manifest, objects["rolled_back"]["status"], marks))


def test_an_edit_is_a_difference(objects: dict[str, Json]) -> None:
    manifest = in_git(objects, guardrails={"rules": [WHOLE_RULE]}, searcher={"replicas": 2})
    live = applied(manifest, objects["at_rest"]["status"])
    assert out_of_sync(manifest | {"spec": manifest["spec"] | {"history": 5}}, live)


def test_nor_are_defaults_in_the_entries_of_lists(objects: dict[str, Json]) -> None:
    short = {name: WHOLE_RULE[name] for name in ("name", "metric", "max")}
    pod = {"tolerations": [{"key": "gpu"}]}
    manifest = in_git(objects, guardrails={"rules": [short]}, searcher={"replicas": 2, "pod": pod})
    live = applied(manifest, objects["at_rest"]["status"])
    assert (len(live["spec"]["guardrails"]["rules"][0]), len(live["spec"]["searcher"]["pod"]["tolerations"][0])) == (
        9,
        4,
    )
    assert not out_of_sync(manifest, live)
    longer = [short, {**short, "name": "other"}]
    assert out_of_sync(manifest | {"spec": manifest["spec"] | {"guardrails": {"rules": longer}}}, live)
