"""Screens of `kubectl vectorindex` on recorded objects, narrow and wide; what they say as JSON; how verbs end."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from record_objects import MOMENTS
from recorded import FOLDER, Recorded

import plugin_page
from vectorindex_operator.core.commands import COMMANDS
from vectorindex_operator.core.phase import Phase
from vectorindex_plugin.app import app, run
from vectorindex_plugin.complete import NO_FILES, candidates
from vectorindex_plugin.exits import Exit
from vectorindex_plugin.facts.decisions import _SECTIONS, runbook
from vectorindex_plugin.facts.next_step import SENTENCES
from vectorindex_plugin.screens import style
from vectorindex_plugin.verbs.common import Session
from vectorindex_plugin.words import size, span

NAMES = tuple(moment.__name__ for moment in MOMENTS)
DOCS = Path(__file__).resolve().parents[2] / "docs"
Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run a command line at a moment; answers exit status and output."""

    def run_at(cluster: Recorded, *words: str, output: str = "screen", width: int = 120) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", str(width))
        session = Session(cluster, "search", output, lambda: cluster.now)
        with redirect_stdout(io.StringIO()) as out:
            status = run([*words, *(["-o", "json"] if output == "json" else [])], session)
        return status, out.getvalue()

    return run_at


def test_how_many_shards_auto_came_to_is_shown(say: Say) -> None:
    cluster = Recorded.at("at_rest")
    for one in cluster.objects:
        if one["kind"] == "VectorIndexRevision":
            one["spec"] |= {"indexSpec": one["spec"]["indexSpec"] | {"shards": "Auto"}, "memoryPerShard": "1Gi"}
            one["status"]["build"]["shards"] = 5
    assert ", 5 shards, 10,000 rows" in " ".join(say(cluster, "get", "products")[1].split())
    told = json.loads(say(cluster, "get", "products", output="json")[1])
    assert {one["shards"] for one in told["revisions"]} == {5}


@pytest.mark.parametrize("width", [60, 140])
@pytest.mark.parametrize("moment", NAMES)
def test_the_screens_of_a_moment(say: Say, moment: str, width: int) -> None:
    cluster = Recorded.at(moment)
    shown = []
    for words in (("list",), ("get", "products"), ("why", "products"), ("history", "products"), ("report", "products")):
        status, text = say(cluster, *words, width=width)
        assert status in (Exit.DONE, Exit.NOT_FOUND)
        assert all(len(line) <= width for line in text.splitlines())
        shown.append(f"$ kubectl vectorindex {' '.join(words)}\n{text}")
    whole = "\n".join(line.rstrip() for line in "\n".join(shown).splitlines()) + "\n"
    golden = FOLDER / "screens" / f"{moment}-{width}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(whole, encoding="utf-8")
    assert whole == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"poll": "0"}, "only an edit of the spec"),
        ({"poll": "5m"}, "which is looked for every 5m, or an edit"),
        (
            {"schedule": {"cron": "0 3 * * *", "timeZone": "Europe/Zurich"}},
            "(Europe/Zurich; next 2027-01-16 03:0",
        ),
    ],
)
def test_what_comes_next_says_when_data_is_looked_for(say: Say, source: dict[str, Any], says: str) -> None:
    cluster = Recorded.at("at_rest")
    cluster.objects[0]["spec"]["source"] |= source
    assert says in json.loads(say(cluster, "get", "products", output="json")[1])["next"]


def test_no_colour_where_nobody_looks(say: Say) -> None:
    assert "\x1b" not in say(Recorded.at("rolled_back"), "get", "products")[1]


def test_colour_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    found = style.console(out)
    assert found.is_terminal or os.environ.get("NO_COLOR")


@pytest.mark.parametrize("moment", NAMES)
def test_the_same_as_json(say: Say, moment: str) -> None:
    cluster = Recorded.at(moment)
    status, text = say(cluster, "get", "products", output="json")
    facts = json.loads(text)
    assert status == Exit.DONE
    assert facts["name"] == "products"
    assert facts["phase"] == cluster.objects[0]["status"]["phase"]
    assert facts["next"]
    assert {one["type"] for one in facts["conditions"]} >= {"Ready", "RolledOut"}
    assert json.loads(say(cluster, "list", output="json")[1])[0]["phase"] == facts["phase"]
    assert json.loads(say(cluster, "history", "products", output="json")[1])[0]["createdAt"]


@pytest.mark.parametrize("status", ["True", "False"])
def test_get_says_what_is_known_of_fresh_rows(say: Say, status: str) -> None:
    cluster = Recorded.at("at_rest")
    said = {"type": "FreshRows", "status": status, "reason": "Answered", "message": "30 rows of 2 files, snapshot 4"}
    cluster.objects[0]["status"]["conditions"].append(said | {"lastTransitionTime": "2027-01-15T00:00:00Z"})
    (line,) = [one for one in say(cluster, "get", "products")[1].splitlines() if "snapshot 4" in one]
    assert line.split()[0] == "fresh"


def test_why_says_that_fresh_rows_were_switched_off(say: Say) -> None:
    cluster = Recorded.at("at_rest")
    serving = json.loads(say(cluster, "get", "products", output="json")[1])["serving"]
    off = {"at": "2027-12-31T00:00:00Z", "rule": "zero", "message": "zero: 9.0% of 1000 queries, above 5%"}
    (view,) = [one for one in cluster.objects if one["metadata"]["name"] == serving and "Revision" in one["kind"]]
    view["status"]["freshOff"] = off
    why = json.loads(say(cluster, "why", "products", output="json")[1])
    assert (why["what"], why["revision"], why["rule"]) == ("FreshRowsOff", serving, "zero")
    assert why["runbook"] == "docs/guardrails.md#with-fresh-rows"
    view["status"]["freshOff"] = off | {"ended": "n1"}
    assert json.loads(say(cluster, "why", "products", output="json")[1])["what"] != "FreshRowsOff"


def test_what_a_guardrail_said_has_its_numbers(say: Say) -> None:
    why = json.loads(say(Recorded.at("rolled_back"), "why", "products", output="json")[1])
    (row,) = why["guardrails"]
    assert (row["verdict"], row["value"], row["limit"]) == ("Fail", "50%", "5%")
    assert why["what"] == "RolledBack"
    assert why["runbook"] == "docs/guardrails.md#zeroresultrate"


def test_a_report_names_its_page_and_takes_the_end_of_a_name(say: Say) -> None:
    cluster = Recorded.at("rejected")
    facts = json.loads(say(cluster, "report", "products", "878f3921", output="json")[1])
    assert (facts["revision"], facts["verdict"]) == ("products-878f3921", "Fail")
    assert facts["page"].startswith("s3://indexes/search/products/878f3921")
    assert facts["page"].endswith("/report.html")
    assert say(cluster, "report", "products", "00000000")[0] == Exit.NOT_FOUND


def test_a_report_says_what_recall_was_measured_against(say: Say) -> None:
    """Of an imported index without vectors it is of what that gives back, and no figure may look like any other."""
    cluster = Recorded.at("rejected")
    asked = ("report", "products", "878f3921")
    assert json.loads(say(cluster, *asked, output="json")[1])["truth"] == "Vectors"
    assert "reconstructions" not in say(cluster, *asked)[1]
    for one in cluster.objects:
        if one["metadata"]["name"] == "products-878f3921":
            one["status"]["report"]["truth"] = "Reconstructions"
    assert json.loads(say(cluster, *asked, output="json")[1])["truth"] == "Reconstructions"
    assert "recall@10 of reconstructions" in say(cluster, *asked)[1]


def test_a_screen_that_is_drawn_anew(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that gets no answer leaves the screen, and the next one goes on."""
    cluster, looks = Recorded.at("at_rest"), itertools.count()

    def sleep(seconds: float) -> None:
        cluster.down = next(looks) == 0
        if next(looks) > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    status, text = say(cluster, "get", "products", "-w")
    assert status == 130
    assert "no answer since" in text
    assert text.count("search/products") == 1, "into a pipe the same screen is written once"
    assert "products-bf9ab92f" in text


def test_two_revisions_differ_by_spec_and_result(say: Say) -> None:
    cluster = Recorded.at("rolled_back")
    names = [one["metadata"]["name"] for one in cluster.objects if one["kind"] == "VectorIndexRevision"]
    status, text = say(cluster, "diff", *names, output="json")
    assert status == Exit.DONE
    changes = {(one["part"], one["name"]) for one in json.loads(text)["changes"]}
    assert ("spec", "index.factory") in changes
    assert ("result", "phase") in changes
    assert not any(part == "data" for part, _ in changes)
    assert "nothing tells" in say(cluster, "diff", names[0], names[0])[1]


def test_what_is_not_there(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Recorded.at("at_rest")
    assert say(cluster, "get", "nobody")[0] == Exit.NOT_FOUND
    assert "no VectorIndex 'nobody'" in capsys.readouterr().err
    assert say(cluster, "diff", "a", "b")[0] == Exit.NOT_FOUND
    assert say(cluster, "why", "products", "-n", "elsewhere")[0] == Exit.NOT_FOUND
    assert say(cluster, "list", "-n", "elsewhere")[1].split()[0] == "NAME"
    assert "products" in say(cluster, "list", "-A")[1]


def test_a_command_line_that_nobody_understands(say: Say) -> None:
    assert say(Recorded.at("at_rest"), "get")[0] == Exit.USAGE
    assert say(Recorded.at("at_rest"), "promot", "products")[0] == Exit.USAGE


def test_who_may_not_read_pods_sees_the_rest_and_is_told(say: Say) -> None:
    cluster = Recorded.at("soaking")
    cluster.refused = frozenset({"Pod", "Service"})
    status, text = say(cluster, "get", "products")
    assert status == Exit.DONE
    assert "Soaking" in text
    assert "Pod: not shown, 403" in text
    cluster.refused = frozenset({"VectorIndex"})
    assert say(cluster, "get", "products")[0] == Exit.UNREACHABLE


# ---------------------------------------------------------------- mirrors


def test_the_page_shows_the_screen_as_it_is(say: Say) -> None:
    _, text = say(Recorded.at("soaking"), "get", "products", width=110)
    assert "\n".join(line.rstrip() for line in text.splitlines()) in (DOCS / "plugin.md").read_text(encoding="utf-8")


def test_each_phase_has_a_sentence_for_what_comes_next() -> None:
    assert set(SENTENCES) == set(Phase)


@pytest.mark.parametrize("reason", sorted(_SECTIONS))
def test_a_guardrail_has_its_section_in_the_runbook(reason: str) -> None:
    page, _, anchor = runbook(reason).removeprefix("docs/").partition("#")
    headings = [line.lstrip("# ").lower() for line in (DOCS / page).read_text(encoding="utf-8").splitlines()]
    assert anchor in headings


def test_other_reasons_have_the_table() -> None:
    assert runbook("RecallBelowMin") == "docs/operations.md#what-wakes-you-and-what-to-do"
    assert "\n## What wakes you, and what to do\n" in (DOCS / "operations.md").read_text(encoding="utf-8")


def test_each_command_is_a_verb() -> None:
    assert set(COMMANDS) <= set(app.commands)


def test_the_reference_page_is_what_the_commands_say() -> None:
    assert plugin_page.PAGE.read_text(encoding="utf-8") == plugin_page.page()


def test_completion_as_kubectl_asks_for_it() -> None:
    lines, directive = candidates(["pro"])
    assert [line.split("\t")[0] for line in lines] == ["promote"]
    assert directive == NO_FILES
    assert [line.split("\t")[0] for line in candidates(["get", "products", "--na"])[0]] == ["--namespace"]


def test_words() -> None:
    assert [span(one) for one in (0.2, 59.6, 61, 3600, 90061)] == ["0s", "1m", "1m1s", "1h", "1d1h"]
    assert [size(one) for one in (0, 1023, 2048, 3 << 20, 5 << 30)] == ["0 B", "1023 B", "2 KiB", "3 MiB", "5 GiB"]
