"""A long run of faults: which turns there are, what is kept of them, and what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chaos import report
from chaos.autoscaler import SHARE, MetricsApi, shares
from chaos.campaign import Campaign, Turn, asked, turns
from chaos.ledger import Ledger, Row
from chaos.site import clear_what_is_left
from chaos.work import Work

Json = dict[str, Any]

ALONE, FAULTS = ["node lost", "node drained"], [f"fault {number}" for number in range(19)]


def test_each_fault_has_its_turn_before_any_has_another_one_in_an_order_that_is_drawn() -> None:
    alone, cycles = turns(Campaign(), ALONE, FAULTS)
    names = [turn.fault for turn in cycles]

    assert [turn.fault for turn in alone] == ALONE
    assert len(names) == 50
    assert sorted(names[:19]) == sorted(names[19:38]) == sorted(FAULTS)
    assert set(Counter(names).values()) == {2, 3}
    assert [turn.number for turn in (*alone, *cycles)] == list(range(1, 53))
    assert len({turn.seed for turn in (*alone, *cycles)}) == 52
    assert turns(Campaign(), ALONE, FAULTS) == (alone, cycles)
    assert [turn.fault for turn in turns(Campaign(seed=2), ALONE, FAULTS)[1]] != names


def test_what_is_chosen_has_one_turn() -> None:
    alone, cycles = turns(Campaign(only="drained|fault 1$"), ALONE, FAULTS)
    assert [turn.fault for turn in (*alone, *cycles)] == ["node drained", "fault 1"]


@pytest.mark.parametrize("name", ["CHAOS_CYCLES", "CHAOS_INDEXES", "CHAOS_MINUTES", "CHAOS_SEED", "CHAOS_RATE"])
@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_what_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}': give a number"):
        asked({name: value})


def test_what_is_asked_for() -> None:
    assert asked({"CHAOS_CYCLES": "", "CHAOS_SCENES": ""}) == Campaign()
    assert asked({"CHAOS_CYCLES": "3", "CHAOS_SCENES": "node"}) == Campaign(cycles=3, only="node")
    with pytest.raises(ValueError, match="CHAOS_SCENES is 'node\\('"):
        asked({"CHAOS_SCENES": "node("})


def test_a_run_that_was_cut_off_goes_on_with_what_was_not_done(tmp_path: Path) -> None:
    _, (first, second, third, *_) = turns(Campaign(), ALONE, FAULTS)
    file = tmp_path / "chaos" / "whole.jsonl"
    run = Ledger(file, Campaign())
    run.begin("Monday", resume=True)
    for turn in (first, second):
        run.add(Row(turn.fault, turn.number, rollouts=1, queries=10, wrong=["oh"] if turn is first else []))
    run.ended(first)
    run.ended(second, "it broke")
    run.leaves(["Pod a/b"])
    with file.open("a") as written:
        written.write('{"row": {"fau')

    again = Ledger(file, Campaign(minutes=5.0))
    again.begin("Tuesday", resume=True)
    assert [again.is_done(turn) for turn in (first, second, third)] == [True, False, False]
    assert not again.went_right(first)
    assert (again.rows, again.left, again.parts) == (run.rows, ["Pod a/b"], ["Monday", "Tuesday"])
    again.add(Row(second.fault, second.number, rollouts=1, queries=5))
    again.ended(second)
    assert again.went_right(second)
    last = Ledger(file, Campaign())
    last.begin("Wednesday", resume=True)
    assert (last.parts[1:], last.done, len(last.rows)) == (["Tuesday", "Wednesday"], again.done, 3)
    Ledger(file, Campaign()).begin("anew", resume=False)
    assert "row" not in file.read_text()


def test_a_run_of_another_campaign_is_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "whole.jsonl"
    Ledger(file, Campaign(seed=2)).begin("Monday", resume=False)
    with pytest.raises(ValueError, match="of another run"):
        Ledger(file, Campaign()).begin("Tuesday", resume=True)


class _Indexes:
    """Numbers in the place of indexes. `wrong`: faults that end otherwise than they must; `breaks`: that break off."""

    def __init__(self, ledger: Ledger, *, wrong: str = "", breaks: str = "", missing: int = 0) -> None:
        self.ledger, self.wrong, self.breaks, self.missing = ledger, wrong, breaks, missing
        self.made, self.played = 0, list[tuple[int, str]]()

    @contextmanager
    def opened(self, turn: Turn) -> Iterator[int]:
        self.made += 1
        if self.made == self.missing:
            raise OSError("no cluster")
        yield self.made

    def play(self, index: int, turn: Turn) -> None:
        self.played.append((index, turn.fault))
        self.ledger.add(Row(turn.fault, turn.number, wrong=["oh"] if turn.fault == self.wrong else []))
        if turn.fault == self.breaks:
            raise OSError("it broke")


def _worked_off(tmp_path: Path, until: float = 1.0, **what: Any) -> _Indexes:
    """Turns of four faults, a to d, on one index at a time."""
    ledger = Ledger(tmp_path / "part.jsonl", Campaign())
    ledger.begin("Monday", resume=True)
    indexes, names = _Indexes(ledger, **what), "abcd"
    todo = [Turn(number, name, number) for number, name in enumerate(names, 1)]
    scenes = dict.fromkeys(names, indexes.play)
    Work(ledger, todo, scenes, indexes.opened, until, clock=lambda: float(len(indexes.played)) / 4).done_by(1)
    return indexes


def test_a_fault_after_which_something_was_wrong_leaves_a_new_index_to_the_next(tmp_path: Path) -> None:
    indexes = _worked_off(tmp_path, wrong="b")
    assert indexes.played == [(1, "a"), (1, "b"), (2, "c"), (2, "d")]
    assert (indexes.ledger.done, indexes.ledger.broken) == ({1, 2, 3, 4}, {})


def test_a_fault_that_broke_off_is_done_again_by_the_run_that_goes_on(tmp_path: Path) -> None:
    indexes = _worked_off(tmp_path, breaks="b")
    assert indexes.played == [(1, "a"), (1, "b"), (2, "c"), (2, "d")]
    assert (indexes.ledger.done, set(indexes.ledger.broken)) == ({1, 3, 4}, {2})
    again = _worked_off(tmp_path)
    assert again.played == [(1, "b")]
    assert (again.ledger.done, again.ledger.broken) == ({1, 2, 3, 4}, {})


def test_an_index_that_cannot_be_made_is_told_and_the_next_turn_has_another(tmp_path: Path) -> None:
    indexes = _worked_off(tmp_path, missing=1)
    assert indexes.played == [(2, "b"), (2, "c"), (2, "d")]
    assert "no cluster" in indexes.ledger.broken[1]


def test_no_fault_begins_after_its_time(tmp_path: Path) -> None:
    indexes = _worked_off(tmp_path, until=0.5)
    assert [fault for _, fault in indexes.played] == ["a", "b"]
    assert [fault for _, fault in _worked_off(tmp_path).played] == ["c", "d"]


def test_the_page_adds_up_the_turns_of_a_fault_and_keeps_what_was_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.results, "FOLDER", tmp_path)
    monkeypatch.setattr(report.results, "SUMMARY", tmp_path / "summary.json")
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    page = tmp_path / "chaos.md"
    page.write_text(f"# Old\n\n{report.BY_HAND}\n\n## What had to be mended\n\nThis.\n")
    ledger = Ledger(tmp_path / "whole.jsonl", Campaign())
    ledger.begin("Monday", resume=False)
    ledger.planned = 3
    for turn in turns(Campaign(), (), ["a fault"])[1][:2]:
        ledger.add(Row(turn.fault, turn.number, 1, 1, times=4, queries=1500, phases={"Soaking": turn.number}))
        ledger.ended(turn)
    ledger.add(Row("between two faults", queries=7, failed=1, failures=["503"]))
    report.remember("writes", {"rollout": 34, "rollback": 33, "every": 1, "killed": 130, "runs": 134, "wrong": []})
    for _ in range(2):
        report.write(ledger)
    text = page.read_text()

    assert "**2 rollouts and 2 rollbacks**, 8 faults, 3,007 queries: **1 failed, 0 answers" in text
    assert "2 of 3 turns are done: `make test-chaos RESUME=1` goes on" in text
    assert "| 8 | 2 | 2 | 0 | 3,000 | 0 | 0 |" in text
    assert "Soaking 3" in text
    assert "- between two faults: 503" in text
    assert "every write of a rollout (34 writes) and of a rollback (33), 130 times in 134 runs" in text
    assert text.endswith(f"{report.BY_HAND}\n\n## What had to be mended\n\nThis.\n")
    assert '"chaos.rollouts": 2' in (tmp_path / "summary.json").read_text()


def test_what_was_found_before_a_run_was_cut_off_is_known_to_the_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.delenv("CHAOS_RESUME", raising=False)
    report.remember("answers", {"faults": 9, "wrong": []})
    assert not report.is_known("answers"), "a run that begins anew"
    monkeypatch.setenv("CHAOS_RESUME", "1")
    assert (report.is_known("answers"), report.is_known("writes")) == (True, False)
    report.remember("answers", {"faults": 9, "wrong": ["this"]})
    assert not report.is_known("answers")
    report.forget()
    assert report.remembered("answers") == {}


def _pod(name: str, phase: str = "Running", **meta: str) -> Json:
    spec = {"containers": [{"name": "searcher"}]}
    return {"metadata": {"name": name, "namespace": "ns", **meta}, "status": {"phase": phase}, "spec": spec}


class _Pods:
    def list(self, kind: str, namespace: str, selector: str) -> list[Json]:
        assert (kind, namespace, selector) == ("Pod", "ns", "a=b")
        return [_pod("a"), _pod("b"), _pod("c", "Pending"), _pod("d", deletionTimestamp="now")]


def test_the_load_of_an_index_is_spread_over_the_pods_that_run() -> None:
    pods = [_pod("a"), _pod("b"), _pod("c", "Pending"), _pod("d", deletionTimestamp="now")]
    assert [(pod["metadata"]["name"], share) for pod, share in shares(pods, 3)] == [
        ("a", SHARE * 3 // 2),
        ("b", SHARE * 3 // 2),
    ]
    assert shares([], 3) == []


def test_the_metrics_api_answers_as_a_controller_asks() -> None:
    metrics = MetricsApi(_Pods(), {"ns": 3})
    status, told = metrics.answer("/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods?labelSelector=a%3Db")
    assert (status, told["kind"], len(told["items"])) == (200, "PodMetricsList", 2)
    assert told["items"][0]["containers"] == [
        {"name": "searcher", "usage": {"cpu": "1m", "memory": str(SHARE * 3 // 2)}}
    ]
    assert metrics.answer("/apis/metrics.k8s.io/v1beta1")[1]["resources"][0]["name"] == "pods"
    assert metrics.answer("/openapi/v2")[0] == 404
    assert metrics.asked == {"ns"}


@pytest.mark.parametrize("cluster", ["local", "current"])
def test_a_run_begins_with_what_a_killed_one_left(cluster: str) -> None:
    """Namespaces and buckets of its name, and a node that it drained; never a node of somebody else's cluster."""
    done: list[tuple[str, ...]] = []
    there = {
        "Namespace": [{"metadata": {"name": name}} for name in ("chaos-1a", "default", "vectorindex-system")],
        "Node": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"unschedulable": True}}],
    }
    kube: Any = SimpleNamespace(
        cluster=SimpleNamespace(name=cluster),
        list=lambda kind: there[kind],
        delete=lambda *what: done.append(what),
        kubectl=lambda *words: done.append(words),
    )
    names = ["chaos-1a", "chaos-2b", "indexes"]
    store: Any = SimpleNamespace(
        buckets=lambda prefix: [name for name in names if name.startswith(prefix)],
        remove_bucket=lambda name: done.append(("bucket", name)),
    )

    clear_what_is_left(kube, store)

    expected = [("Namespace", "chaos-1a"), ("bucket", "chaos-1a"), ("bucket", "chaos-2b")]
    assert done == expected + ([("uncordon", "b")] if cluster == "local" else [])
