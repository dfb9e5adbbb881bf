"""Health and actions of a VectorIndex in Argo CD: its scripts, run in Lua 5.1, on states that the real loop wrote.

The states are played again in the simulator, and what an action writes is answered by the operator's own decision: what
Argo CD shows and offers is what the operator means and obeys.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import argo_lua
import celpy
import pytest
import yaml
from argo_states import STATES, asked, disabled, documents, health_of, index_of, script_of, world_of
from kstatus import kstatus
from layers import CHECKOUT
from record_objects import objects
from recorded import Recorded
from simulator.store import Json

from argocd_files import ARGOCD, KIND
from vectorindex_operator.core.commands import COMMANDS, Command, read_commands
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.observe import observe
from vectorindex_plugin.lint.check import index_schema
from vectorindex_plugin.lint.schema import with_defaults

NAMES = tuple(STATES)
VERDICTS_DECIDE = {"shifting": {"promote"}, "soaking": {"promote"}, "paused": {"promote"}}
"""State -> actions that are offered there, and that the operator refuses as long as pods have told it nothing."""
DONE_ALREADY = {"paused": {"pause"}}
"""State -> actions that the operator obeys there by doing nothing."""


def stored(path: str) -> Json:
    """A file of the chart's folder."""
    plain: Json = yaml.safe_load((KIND / path).read_text(encoding="utf-8"))
    return plain


def page() -> str:
    return (CHECKOUT / "docs" / "gitops.md").read_text(encoding="utf-8")


def recorded(name: str) -> Json:
    return stored(STATES[name].path)


def without_figures(text: str) -> str:
    """Names of revisions, times and figures are other ones whenever the simulator learns something."""
    return re.sub(r"[0-9a-f]{8}|[0-9.:TZ-]+", "#", text)


# ---------------------------------------------------------------- health


@pytest.mark.parametrize("name", NAMES)
def test_a_state_has_the_health_that_argo_cd_shows(name: str) -> None:
    obj = recorded(name)
    assert health_of(obj)["status"] == STATES[name].health
    assert kstatus(obj) == STATES[name].kstatus


def test_the_tests_of_the_folder_are_those_of_the_states() -> None:
    """In the format that Argo CD's own tests read."""
    made = dict(documents({name: recorded(name) for name in NAMES}))
    files = {str(path.relative_to(KIND)): path for path in KIND.rglob("*.yaml")}
    assert set(files) == set(made)
    for path, document in made.items():
        assert stored(path) == document, path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rolled_back", r"RolledBack: products-\w+: zero: zero-result rate 50% .* max 5%"),
        ("rejected", r"RecallBelowMin: products-\w+: recall@10 is 0\.5000, .* the limit is 0\.95"),
        ("source_not_readable", "BucketNotFound: bucket embeddings does not exist"),
        ("at_rest", r"products-\w+ is stable, recall 0\.9800, 2/2 pods ready"),
        ("bad_and_no_way_back", "zero-result rate 50%"),
        ("an_observed_rule_fails", r"is stable, .*; BoundExceeded: zero: zero-result rate 50%"),
        ("goes_back_when_loaded", "RollbackTargetNotReady: its searchers are being loaded"),
        ("edited_just_now", "not looked at generation 2 yet"),
        ("paused", r"products-\w+ is held since .* pause n1"),
        ("no_pod_is_ready", "NoReadyPods: no searcher of"),
    ],
)
def test_the_message_has_the_numbers(name: str, says: str) -> None:
    assert re.search(says, health_of(recorded(name))["message"])


def pruned(obj: Json) -> Iterator[Json]:
    """The object with one thing left out of its status: as other releases, and other people's tools, may write it."""
    status = obj.get("status", {})
    for key in status:
        yield {**obj, "status": {name: part for name, part in status.items() if name != key}}
    for index, condition in enumerate(status.get("conditions", ())):
        for left in ({}, *({k: v for k, v in condition.items() if k != key} for key in ("reason", "message"))):
            changed = copy.deepcopy(obj)
            changed["status"]["conditions"][index : index + 1] = [left] if left else []
            yield changed


@pytest.mark.parametrize("name", ["rolled_back", "paused", "suspended", "at_the_conservative_point"])
def test_whatever_is_missing_a_script_answers(name: str) -> None:
    """One that fails makes the whole application Unknown."""
    for obj in pruned(recorded(name)):
        assert health_of(obj)["status"] in ("Healthy", "Progressing", "Suspended", "Degraded")
        assert set(disabled(obj)) == set(COMMANDS)


def test_scripts_get_no_library_that_argo_cd_does_not_open() -> None:
    answer = argo_lua.run('return {type(string), type(math), type(io), type(os), type(require("os").time)}', {})
    assert answer == ["nil", "nil", "nil", "nil", "function"]
    assert argo_lua.run('return {tostring(pcall(function() return ("x"):len() end))}', {}) == ["false"]


# ---------------------------------------------------------------- Flux

AS_STRICT = {"Degraded": "Failed", "Healthy": "Current", "Progressing": "InProgress", "Suspended": "InProgress"}


def flux_expressions() -> dict[str, str]:
    """healthCheckExprs of docs/gitops.md, in the order in which Flux asks."""
    blocks = (part.partition("```")[0] for part in page().split("```yaml\n")[1:])
    (made,) = (one for one in map(yaml.safe_load, blocks) if one["kind"] == "Kustomization")
    (checks,) = made["spec"]["healthCheckExprs"]
    return {
        said: checks[key] for said, key in (("InProgress", "inProgress"), ("Failed", "failed"), ("Current", "current"))
    }


@cache
def flux_programs() -> dict[str, celpy.Runner]:
    environment = celpy.Environment()
    return {said: environment.program(environment.compile(text)) for said, text in flux_expressions().items()}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nobody_looked"])
def test_with_its_expressions_flux_is_as_strict_as_argo_cd(name: str) -> None:
    """Without a status an expression asks for what is not there, and Flux waits."""
    obj = recorded(name)
    said = "InProgress"
    if obj["status"]["observedGeneration"] == obj["metadata"]["generation"]:
        given = celpy.json_to_cel({**with_defaults(obj, index_schema()), "status": obj["status"]})
        said = next((word for word, program in flux_programs().items() if program.evaluate(given)), "InProgress")
    assert said == AS_STRICT[STATES[name].health]


# ---------------------------------------------------------------- actions


def test_each_command_is_an_action() -> None:
    assert {path.parent.name for path in KIND.glob("actions/*/action.lua")} == set(COMMANDS)


@pytest.mark.parametrize("action", COMMANDS)
def test_an_action_writes_the_annotation_that_the_operator_reads_and_nothing_else(action: str) -> None:
    before = recorded("soaking")
    assert "annotations" not in before["metadata"]
    after = argo_lua.cleaned(argo_lua.run(script_of(action), before), before)
    annotations = after["metadata"].pop("annotations")
    assert after == before
    (command,) = read_commands(annotations)
    assert (command.name, command.argument) == (action, "")
    assert re.fullmatch(r"argocd-\d{10}", command.nonce)


def test_an_action_keeps_other_annotations() -> None:
    before = recorded("paused")
    after = asked(before, "resume", "argocd-1")
    assert read_commands(after["metadata"]["annotations"]) == (
        Command("pause", "", "n1"),
        Command("resume", "", "argocd-1"),
    )


# ---------------------------------------------------------------- the operator of today


def answer_of(name: str, action: str) -> str:
    """What the operator says of an action in a state; empty: it has begun, and is answered when it is done."""
    world = world_of(name)
    now, *found = copy.deepcopy(objects(world))
    cluster = Recorded(found, now["unix"])
    at = next(index for index, one in enumerate(found) if one["kind"] == "VectorIndex")
    found[at] = asked(found[at], action)
    obs = observe(cluster, "search", "products", cluster.now)  # type: ignore[arg-type]
    assert obs is not None
    status = decide(obs, Installation(searcher_image="searcher:1"), cluster.now).status
    return next((one.result for one in status.verbs if one.nonce == "argocd-0"), "")


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_what_the_operator_writes_today_and_what_is_offered_is_what_it_obeys(name: str) -> None:
    """If this fails: `PYTHONPATH=tests:hack python tests/argo_states.py`, then read the difference."""
    before, today = recorded(name), index_of(world_of(name))

    def seen(obj: Json) -> list[tuple[str, str, str]]:
        return [(one["type"], one["status"], one["reason"]) for one in obj.get("status", {}).get("conditions", ())]

    assert seen(today) == seen(before)
    assert disabled(today) == disabled(before)
    one, other = health_of(today), health_of(before)
    assert (one["status"], without_figures(one["message"])) == (other["status"], without_figures(other["message"]))

    if name in ("nobody_looked", "edited_just_now"):
        return  # what is offered is about the spec of before
    refused = {action for action in COMMANDS if answer_of(name, action) == "Refused"}
    greyed = {action for action, off in disabled(today).items() if off}
    assert greyed - refused == DONE_ALREADY.get(name, set()), "obeyed, and not offered"
    assert refused - greyed == VERDICTS_DECIDE.get(name, set()), "offered, and refused"


# ---------------------------------------------------------------- what is installed


def customizations() -> dict[str, str]:
    made: dict[str, str] = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text(encoding="utf-8"))["data"]
    return made


def test_the_patch_and_the_values_hold_the_scripts_of_the_folder() -> None:
    values: dict[str, Any] = yaml.safe_load((ARGOCD / "argo-cd-values.yaml").read_text(encoding="utf-8"))
    assert values["configs"]["cm"] == customizations()
    health, actions = (f"resource.customizations.{what}.vectorindex.dev_VectorIndex" for what in ("health", "actions"))
    assert set(customizations()) == {health, actions}
    assert customizations()[health] == (KIND / "health.lua").read_text(encoding="utf-8")
    parts = yaml.safe_load(customizations()[actions])
    assert parts["discovery.lua"] == (KIND / "actions" / "discovery.lua").read_text(encoding="utf-8")
    assert {one["name"]: one["action.lua"] for one in parts["definitions"]} == {one: script_of(one) for one in COMMANDS}


def test_the_page_names_each_state_and_each_action() -> None:
    table = page().partition("## What is shown when\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[2:4]] for row in table.splitlines() if row.startswith("| ")]
    assert {(health, kind) for health, kind in rows[1:]} == {(one.health, one.kstatus) for one in STATES.values()}
    for action in COMMANDS:
        assert f"`{action}`" in page()
