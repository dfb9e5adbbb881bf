"""What the benchmark of rest counts and judges; the run itself needs an API server and an hour."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from idle_audit import GOALS, Tail, Use, counted, written
from played_pods import Pods

from vectorindex_operator.adapters.evidence_answers import read_columns
from vectorindex_operator.core.judging.columns import counted_of
from vectorindex_searcher.contract import EVIDENCE_CURSOR_HEADER, TARGET_HEADER

CLIENT, WATCHER = "OpenAPI-Generator/34.1.0/python", "kopf/1.38.0"


def event(verb: str, resource: str = "pods", namespace: str = "team-1", **more: Any) -> dict[str, Any]:
    """A request as the audit log tells of it, when it is answered."""
    return {
        "verb": verb,
        "stage": "ResponseComplete",
        "userAgent": CLIENT,
        "user": {"username": "operator"},
        "objectRef": {"resource": resource, "namespace": namespace},
    } | more


LOOK = [event("get", "services"), event("list")]
RELIST = [event("list", namespace=""), event("list", "jobs", namespace="")]
WATCH = [
    event("list", namespace="", userAgent=WATCHER),
    event("watch", namespace="", userAgent=WATCHER, stage="ResponseStarted"),
]
LEASE = [event("get", "leases"), event("update", "leases")]
WRITES = [
    event("patch", "vectorindexes", objectRef={"resource": "vectorindexes", "subresource": "status"}),
    event("create", "events"),
    event("delete", "jobs"),
]
END_OF_A_WATCH = event("watch", namespace="", userAgent=WATCHER)


def test_each_request_counts_once_and_for_what_it_is() -> None:
    found = counted([*LOOK, *RELIST, *WATCH, *LEASE, *WRITES, END_OF_A_WATCH])

    assert found == Counter(
        {Use.READ: 2, Use.RELIST: 2, Use.WATCH: 2, Use.LEASE_READ: 1, Use.LEASE_WRITE: 1, Use.WRITE: 3}
    )
    assert sum(count for use, count in found.items() if use.reads) == 6
    assert written([*LOOK, *LEASE, *WRITES]) == {"patch vectorindexes/status": 1, "create events": 1, "delete jobs": 1}


def test_the_tail_reads_each_line_once_and_whole_ones_only(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    first, other, last = (
        json.dumps(one) for one in (event("get"), event("get", user={"username": "x"}), event("list"))
    )
    log.write_text(f"{first}\n{other}\n{last[:20]}")
    tail = Tail(log, "operator")

    assert [one["verb"] for one in tail.new()] == ["get"]
    log.write_text(f"{first}\n{other}\n{last}\n")
    assert [one["verb"] for one in tail.new()] == ["list"]
    assert list(tail.new()) == []


def test_a_log_that_has_begun_a_new_file_is_not_read_on(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(event("get")) + "\n")
    tail = Tail(log, "operator")
    assert len(list(tail.new())) == 1

    log.rename(tmp_path / "audit-old.log")
    log.write_text("".join(json.dumps(event("list")) + "\n" for _ in range(9)))
    with pytest.raises(RuntimeError, match="another file by now"):
        list(tail.new())


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.figure)
def test_a_figure_passes_up_to_its_goal_and_never_by_absence(goal: Any) -> None:
    assert goal.verdict(goal.most) == "pass"
    assert goal.verdict(goal.most + 0.001) == "MISS"
    assert goal.verdict(None) == "not measured"


def test_pods_tell_what_the_operator_reads_and_go_on_from_its_cursor() -> None:
    now = [1_800_000_002.0]
    pods = Pods(clock=lambda: now[0])
    pods.obey(json.dumps({"load": "docs-1", "segments": ["a", "b"]}))
    path, headers = "/v1/evidence?since=1799999000", {TARGET_HEADER.lower(): "uid/docs-1/0"}

    whole = read_columns(pods.answer("GET", path, headers)[1])
    now[0] += 5
    pods.obey(json.dumps({"fail": "docs-1"}))
    now[0] += 5
    more = read_columns(pods.answer("GET", path, headers | {EVIDENCE_CURSOR_HEADER.lower(): whole.cursor})[1])
    before, after = counted_of(whole), counted_of(more)

    assert (whole.whole, whole.more, more.whole, more.revision) == (True, False, False, "docs-1")
    assert {row.segment for row in before} == {"a", "b", "other"}
    assert before[-1].bucket == after[0].bucket == 360_000_000
    assert [row.cell.failed_requests > 0 for row in after[::3]] == [False, False, True]
    assert len(pods.obey(json.dumps({"asked": "docs-1"}))["asked"]) == 1
