"""What the demo says of a run, and that its manifests differ in what they show and in nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.summary import EXPECTED, Summary
from harness.traffic import RevisionAnswers, Snapshot
from vectorindex_operator.api.v1alpha1 import VectorIndexSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import demo_figures

MANIFESTS = Path(__file__).resolve().parents[2] / "examples" / "pydocs"
ENDS: tuple[dict[str, Any], ...] = (
    {"phase": "Stable", "message": "NoPrior: the first revision"},
    {"phase": "Rejected", "rejected": {"stage": "Gate", "reason": "RecallBelowMin"}},
    {"phase": "Rejected", "rejected": {"stage": "Shadow", "reason": "ZeroResultRate"}},
    {"phase": "RolledBack", "rejected": {"stage": "Rollout", "reason": "ZeroResultRate"}},
    {"phase": "Stable", "message": "SoakPassed: passed every guardrail"},
)


def a_run(answers: tuple[int, ...], failed: int = 0) -> Summary:
    """Five revisions and how many answers users got of each."""
    summary = Summary()
    for number, end in enumerate(ENDS):
        summary.add(f"pydocs-{number}", end)
    seen = {
        f"pydocs-{number}": RevisionAnswers(many, 0, 0, 0.0, 1.0, 2.0) for number, many in enumerate(answers) if many
    }
    summary.traffic = Snapshot(queries=sum(answers) + failed, failed=failed, revisions=seen)
    return summary


def test_a_run_that_went_as_it_must() -> None:
    summary = a_run((900, 0, 0, 70, 300))
    assert summary.as_expected
    document = summary.document()
    assert document["outcomes"] == list(EXPECTED)
    assert [one["bad_answers"] for one in document["revisions"]] == [0, 0, 0, 70, 0]
    assert demo_figures.figures(document) == {"shadow.bad_answers": 0.0}


@pytest.mark.parametrize(("answers", "failed"), [((900, 0, 1, 70, 300), 0), ((900, 1, 0, 70, 300), 0), ((900,), 1)])
def test_a_query_that_fails_or_is_answered_by_what_was_rejected_is_no_success(
    answers: tuple[int, ...], failed: int
) -> None:
    assert not a_run(answers, failed).as_expected


def test_a_run_in_which_nothing_was_rejected_in_shadow_has_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = a_run((1,)).document()
    document["revisions"] = document["revisions"][:2]
    (tmp_path / "summary.json").write_text(json.dumps(document))
    monkeypatch.setattr(sys, "argv", ["demo_figures.py", "--run", str(tmp_path / "summary.json"), "--write"])
    assert demo_figures.main() == 1


def test_the_manifests_differ_in_the_data_and_the_index_alone() -> None:
    specs = [yaml.safe_load(path.read_text())["spec"] for path in sorted(MANIFESTS.glob("*.yaml"))]
    assert len(specs) == len(EXPECTED)
    shown = [(spec["source"]["s3"].pop("prefix"), spec["index"].pop("factory")) for spec in specs]
    assert len(set(shown)) == len(specs)
    assert all(spec == specs[0] for spec in specs)
    spec = VectorIndexSpec.model_validate(specs[0])
    assert spec.rollout.shadows
