"""What the dashboard says of indexes: facts on recorded objects, as JSON."""

from __future__ import annotations

import json

import click
import pytest
from boards import PAGE, looks
from record_objects import MOMENTS
from recorded import Recorded

from vectorindex_operator.api.v1alpha1 import RuleVerdict
from vectorindex_operator.core.phase import Phase
from vectorindex_plugin.facts.charts import interval
from vectorindex_plugin.facts.jobs import progress
from vectorindex_plugin.tones import Tone, tone
from vectorindex_plugin.verbs import ask, see, talk


@pytest.mark.parametrize("moment", [moment.__name__ for moment in MOMENTS])
def test_each_moment_as_json(moment: str) -> None:
    cluster = Recorded.at(moment)
    made = looks(cluster)
    (row,), index = made.board()["rows"], made.index("search", "products")
    assert json.loads(json.dumps(index)) == index
    phase = cluster.objects[0]["status"]["phase"]
    assert row["row"]["phase"] == index["index"]["phase"] == phase
    assert row["tone"] == index["tone"] == tone(phase)
    revisions = [one["metadata"]["name"] for one in cluster.objects if one["kind"] == "VectorIndexRevision"]
    assert {dot["revision"] for dot in row["dots"]} == set(revisions)
    assert {one["said"]["name"] for one in index["revisions"]} == set(revisions)
    for track in index["timeline"]["tracks"]:
        times = [each["since"] for each in track["spans"]]
        assert times == sorted(times)
        assert [each.get("until") for each in track["spans"][:-1]] == times[1:]
        assert track["spans"][-1]["phase"] == track["phase"]


def test_a_rollback_has_its_numbers_its_band_and_its_line() -> None:
    index = looks(Recorded.at("rolled_back")).index("search", "products")
    assert index["timeline"]["move"]["what"] == "RolledBack"
    assert index["decisions"][0]["what"] == "RolledBack"
    (failed,) = [one for one in index["revisions"][0]["charts"] if one["tone"] == "bad"]
    assert failed["low"] < failed["value"] == 0.5 < failed["high"]
    assert failed["limit"] == 0.05 < failed["low"]
    lines = {one["verb"]: one for one in index["lines"]}
    assert lines["rollback"]["line"] == "kubectl vectorindex rollback products -n search --context=prod"
    assert lines["pin"]["line"].startswith("kubectl vectorindex pin products products-bf9ab92f ")
    assert lines["rollback"]["writes"]
    assert not lines["get"]["writes"]


def test_each_verb_about_an_index_has_its_line() -> None:
    index = looks(Recorded.at("soaking")).index("search", "products")
    verbs = {str(one.name) for one in (*see.VERBS, *talk.VERBS, *ask.VERBS) if isinstance(one, click.Command)}
    assert {one["verb"] for one in index["lines"]} == verbs - {"list"}


def test_a_shadow_has_its_pairs() -> None:
    (one, *_) = looks(Recorded.at("shadowing")).index("search", "products")["revisions"]
    assert (one["shadow"]["reference"], one["shadow"]["compared"]) == ("products-bf9ab92f", 624)
    assert {row["said"]["rule"] for row in one["shadow"]["rows"]} >= {"unanswered", "errors", "zero"}


def test_a_job_that_waits_says_for_what() -> None:
    (job, *_) = looks(Recorded.at("building")).index("search", "products")["jobs"]
    assert (job["task"], job["state"], job["tone"]) == ("build", "Waiting", "moving")
    assert "nvidia.com/gpu" in job["why"]


def test_how_far_a_job_is_stands_in_its_log() -> None:
    lines = [
        '{"message": "adding rows", "rows": 100, "total": 400, "etaSeconds": 9}',
        "no JSON",
        "[1]",
        '{"message": "adding rows", "rows": 200, "total": 400}',
        '{"message": "hello", "rows": "many", "total": 1}',
    ]
    said = progress("\n".join(lines))
    assert said is not None
    assert (said.step, said.done, said.total, said.eta_seconds) == ("adding rows", 200, 400, None)
    assert progress("") is None
    training = progress('{"message": "training"}')
    assert training is not None
    assert (training.step, training.done) == ("training", None)


def test_events_are_the_newest_first_and_of_this_index() -> None:
    cluster = Recorded.at("soaking")
    event = {"kind": "Event", "metadata": {"namespace": "search", "name": "x"}, "reason": "Soaking", "note": "<b>x</b>"}
    for at, name in (("01", "products"), ("02", "products"), ("03", "other")):
        cluster.objects.append({**event, "regarding": {"name": name}, "eventTime": f"2027-01-15T08:00:{at}Z"})
    cluster.objects.append({**event, "regarding": {"name": "products"}, "eventTime": 7})
    events = looks(cluster).index("search", "products")["events"]
    assert [one["at"][-3:-1] for one in events] == ["02", "01"]


def test_an_interval_is_of_rates_with_samples_only() -> None:
    def row(metric: str, value: float | None, samples: int) -> RuleVerdict:
        said = {"rule": "r", "verdict": "Pass", "reason": "x", "at": "2027-01-15T08:00:00Z"}
        return RuleVerdict(metric=metric, value=value, samples=samples, **said)

    low, high = interval(row("ErrorRate", 0.1, 100))
    assert low == pytest.approx(0.049, abs=1e-3)
    assert high == pytest.approx(0.176, abs=1e-3)
    nothing = (None, None)
    assert interval(row("LatencyP95", 0.1, 100)) == nothing
    assert interval(row("ErrorRate", None, 100)) == nothing
    assert interval(row("ErrorRate", 0.1, 0)) == nothing
    assert interval(row("ErrorRate", 7.0, 100)) == nothing
    assert interval(row("OfAnotherRelease", 0.1, 100)) == nothing


def test_a_status_of_another_release_is_shown_as_far_as_it_goes() -> None:
    cluster = Recorded.at("promoted")
    for one in cluster.objects:
        if one["kind"] == "VectorIndexRevision":
            one["status"] |= {"phase": "Dreaming", "phaseTimes": {"Dreaming": "soon", "Stable": "2027-01-15T08:00:39Z"}}
            one["status"]["report"]["overall"]["recall"] = "high"
    made = looks(cluster)
    assert [dot["tone"] for dot in made.board()["rows"][0]["dots"]] == [Tone.QUIET] * 2
    assert made.index("search", "products")["timeline"]["tracks"][0]["spans"][0]["phase"] == "Stable"


def test_each_phase_that_lasts_has_its_colour() -> None:
    css = (PAGE / "charts.css").read_text(encoding="utf-8")
    lasting = {phase for phase in Phase if tone(phase) is Tone.MOVING} | {Phase.STABLE}
    assert {phase for phase in lasting if f".p-{phase}" in css} == lasting


def test_what_was_restored_was_promoted_for_its_own_reason() -> None:
    """Its message is by then that of the revision which was taken back."""
    found = looks(Recorded.at("rolled_back")).index("search", "products")["decisions"]
    (promoted,) = [one for one in found if one["what"] == "Promoted"]
    assert "zero-result rate" not in promoted["message"]
