"""`kubectl vectorindex lint` on manifests that the API server is known to refuse or to take (tests/lint_cases.py); that
they agree on all others shows tests/apiserver/test_lint.py."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from layers import CHECKOUT
from lint_cases import SMALLEST, accepted, changed, refused

from vectorindex_plugin.app import run
from vectorindex_plugin.exits import Exit
from vectorindex_plugin.lint import check, rules, schema
from vectorindex_plugin.lint.facts import FaultFacts
from vectorindex_plugin.lint.manifests import Manifest, parse


def faults(manifest: object) -> tuple[FaultFacts, ...]:
    return check.lint([Manifest("one.yaml", manifest)], tries=False).faults


def lint(*words: str) -> tuple[int, dict[str, Any]]:
    with redirect_stdout(io.StringIO()) as out:
        status = run(["lint", *words, "-o", "json"])
    return status, json.loads(out.getvalue() or "{}")


def test_what_the_api_server_refuses_is_refused_by_the_same_field() -> None:
    for name, manifest, field in refused():
        found = faults(manifest)
        assert found, f"{name}: taken"
        assert any(field.strip(".") in one.field for one in found), (name, found)


def test_what_the_api_server_takes_is_taken() -> None:
    assert {name: found for name, manifest in accepted() if (found := faults(manifest))} == {}


def test_a_quantity_that_is_null_is_taken_as_the_api_server_takes_it() -> None:
    for field in ("build.resources.limits", "searcher.resources.requests"):
        assert faults(changed(SMALLEST, f"spec.{field}", {"cpu": None, "memory": "2Gi"})) == ()


@pytest.mark.parametrize("path", sorted((CHECKOUT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_our_examples_have_no_fault(path: Path) -> None:
    status, said = lint(str(path))
    assert (status, said["faults"]) == (Exit.DONE, [])
    assert said["checked"] >= 1


def test_a_fault_has_its_line() -> None:
    text = yaml.safe_dump(SMALLEST, sort_keys=False) + "---\n" + yaml.safe_dump(changed(SMALLEST, "spec.gate.k", 0))
    (one,) = check.lint(parse("some.yaml", text), tries=False).faults
    assert one.field == "spec.gate.k"
    assert text.splitlines()[one.line - 1].strip() == "k: 0"
    assert "minimum of 1" in one.message


def test_what_is_no_yaml_or_stands_twice() -> None:
    (one,) = check.lint(parse("f", "a: [1\nb: 2\n"), tries=False).faults
    assert (one.line, one.message.split(":")[0]) == (2, "no YAML")
    text = yaml.safe_dump(SMALLEST) + "spec: {}\n"
    assert "it stands twice" in {one.message for one in check.lint(parse("f", text), tries=False).faults}


def test_other_kinds_are_passed_over_and_unknown_ones_of_ours_are_not() -> None:
    assert check.lint([Manifest("f", {"apiVersion": "v1", "kind": "Secret"})]).checked == 0
    (one,) = faults(SMALLEST | {"kind": "VectorIndexes"})
    assert one.field == "kind"
    (one,) = faults(SMALLEST | {"apiVersion": "vectorindex.dev/v2"})
    assert "v1alpha1" in one.message


def test_no_rule_is_asked_of_what_has_a_wrong_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """cel-python's errors grow with each rule that meets one: a wrong type in a whole spec took gigabytes."""
    asked: list[str] = []
    monkeypatch.setattr(rules, "_evaluated", lambda rule, given: bool(asked.append(rule)) or True)
    monkeypatch.setattr(check, "_rules", lambda: rules.Rules(check.index_schema()))
    found = faults(changed(SMALLEST, "spec.rollout", {"shadow": "x"}))
    assert {one.field for one in found} == {"spec.rollout.shadow"}
    assert asked, "what stands beside it is judged all the same"
    assert not any("self.rollout" in rule or "maxPerSecond" in rule for rule in asked)


def test_a_rule_about_an_edit_needs_what_was_there() -> None:
    said = rules.Rules(check.index_schema())
    edits = (changed(SMALLEST, "spec.embedding.metric", metric) for metric in ("Cosine", "L2"))
    old, new = (schema.with_defaults(one, check.index_schema()) for one in edits)
    assert not list(said.faults(new))
    assert [path for path, _ in said.faults(new, old)] == [("spec", "embedding", "metric")]


def test_factory_strings_are_tried_by_the_data_plane() -> None:
    given = changed(changed(SMALLEST, "spec.embedding.dimension", 64), "spec.index.factory", "IVF64,PQ63x4fs")
    said = check.lint([Manifest("f", given)])
    assert [one.field for one in said.faults] == ["spec.index.factory"]
    good = changed(given, "spec.index.factory", "IVF64,PQ32x4fs")
    assert check.lint([Manifest("f", good)]) == check.LintFacts(1, (), ())
    unknown = changed(good, "spec.embedding", {})
    assert check.lint([Manifest("f", unknown)]).notes == (check.NEEDS_DIMENSION,)


def test_without_faiss_a_factory_string_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    given = changed(changed(SMALLEST, "spec.embedding.dimension", 64), "spec.index.factory", "HNSW32")
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    assert check.lint([Manifest("f", given)]).notes == (check.NEEDS_FAISS,)


def test_how_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(changed(SMALLEST, "spec.gate.k", 0)))
    assert lint(str(bad))[0] == Exit.REFUSED
    assert lint(str(tmp_path))[1]["checked"] == 1
    assert lint(str(tmp_path / "none.yaml"))[0] == Exit.NOT_FOUND
    assert run(["lint"]) == Exit.USAGE
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(SMALLEST)))
    assert lint("-")[0] == Exit.DONE


def test_as_people_see_it(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(changed(SMALLEST, "spec.gate.k", 0)))
    with redirect_stdout(io.StringIO()) as out:
        run(["lint", str(bad)])
    first, last = out.getvalue().splitlines()
    assert first.startswith(f"{bad}:")
    assert "lint spec.gate.k: " in first
    assert last == "1 checked, 1 fault"


def test_a_rule_that_cannot_be_evaluated_is_a_fault() -> None:
    rule = {"rule": "self.there.is.nothing == 1", "message": "one"}
    assert list(rules.Rules({"x-kubernetes-validations": [rule]}).faults({"a": 1})) == [((), f"one{rules.UNSURE}")]
