"""What the webhook is told, when, how often, and what a receiver can do to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from concurrent.futures import Future
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from observations import NOW, SETTINGS, a_revision, index, seen, spec

from vectorindex_operator.adapters import webhook
from vectorindex_operator.adapters.admin_port import AdminPort
from vectorindex_operator.adapters.webhook import Receiver, Webhook, cloud_event
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Rejection, RevisionStatus
from vectorindex_operator.core.backoff import notice_wait
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.notices import Notice, NoticeKind, notices, notified
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.reconcile.notices import Notices

STABLE_VIEW = a_revision(spec(), "Stable")
SEEN = seen(spec(), STABLE_VIEW, traffic=STABLE_VIEW)
KEY = "search", "products"
INDEX = index(spec())
BACK = Decision(DecisionKind.ROLL_BACK, "b", "a", "zero-results", "ZeroResultRate", "too many", NOW)
REJECTED = RevisionStatus(
    phase="Rejected",
    phase_times={"Rejected": to_text(NOW - 60)},
    rejected=Rejection(stage="Gate", reason="RecallBelowMin", message="recall 0.2", at=to_text(NOW - 60)),
)
STABLE = RevisionStatus(phase="Stable", promoted_at=to_text(NOW - 600), message="SoakPassed: passed")
"""Promoted before the other was rejected."""


def told() -> tuple[Notice, ...]:
    return notices(INDEX, {"a": STABLE, "b": REJECTED}, BACK)


# ---------------------------------------------------------------- what there is to tell


def test_promotions_failures_and_the_last_decision_oldest_first() -> None:
    stable, rejected, back = told()
    assert (stable.kind, stable.revision, stable.at) == (NoticeKind.STABLE, "a", to_text(NOW - 600))
    assert (rejected.kind, rejected.outcome, rejected.reason) == (NoticeKind.FAILED, "Rejected", "RecallBelowMin")
    assert (back.kind, back.revision, back.before, back.rule) == (NoticeKind.ROLLED_BACK, "a", "b", "zero-results")
    assert len({stable.id, rejected.id, back.id}) == 3


def test_an_id_is_of_what_happened() -> None:
    """The same at each look, and another where it happens again, or to another index."""
    assert [one.id for one in told()] == [one.id for one in told()]
    again = REJECTED.model_copy(update={"phase_times": {"Rejected": to_text(NOW)}})
    assert notices(INDEX, {"b": again}, None)[0].id != notices(INDEX, {"b": REJECTED}, None)[0].id
    other = replace(INDEX, uid="another")
    assert notices(other, {"b": REJECTED}, None)[0].id != notices(INDEX, {"b": REJECTED}, None)[0].id


def test_what_was_before_the_first_look_is_not_told() -> None:
    ids = {one.id for one in told()}
    assert set(notified(None, told(), frozenset()) or ()) == ids
    assert notified((), told(), frozenset()) == ()
    assert set(notified((), told(), frozenset(ids)) or ()) == ids
    assert notified(("gone",), told(), frozenset()) == (), "what is no row any more is forgotten"


# ---------------------------------------------------------------- telling


class Courier:
    """Takes, or does not; `open`: those that wait for an answer."""

    def __init__(self) -> None:
        self.sent: list[Notice] = []
        self.open: list[Future[str]] = []

    def send(self, notice: Notice) -> Future[str]:
        self.sent.append(notice)
        self.open.append(Future())
        return self.open[-1]


class Telling:
    def __init__(self) -> None:
        self.courier, self.now = Courier(), NOW
        self.marked: list[tuple[str, str]] = []
        self.results: list[bool] = []
        self.notices = Notices(
            self.courier, lambda *key: self.marked.append(key), self.results.append, lambda: self.now
        )

    def offer(self, *taken: str) -> float | None:
        return self.notices.offer(KEY, told(), taken)

    def answer(self, problem: str = "") -> None:
        self.courier.open[-1].set_result(problem)


def test_one_after_the_other_and_each_once() -> None:
    one, (first, second, third) = Telling(), told()
    assert one.offer() is None
    assert one.offer() is None
    assert one.courier.sent == [first], "it is under way"
    one.answer()
    assert (one.marked, one.results) == ([KEY], [True])
    assert one.notices.taken(KEY) == {first.id}
    for expected in (second, third):
        one.offer(first.id)
        assert one.courier.sent[-1] == expected
        one.answer()
    assert one.offer(first.id, second.id, third.id) is None
    assert len(one.courier.sent) == 3
    assert one.notices.taken(KEY) == frozenset(), "the status says it"


def test_what_was_not_taken_is_sent_again_later_and_later() -> None:
    one, (first, *_) = Telling(), told()
    for failures in range(1, 10):
        one.offer()
        assert len(one.courier.sent) == failures
        one.answer("status 500")
        wait = notice_wait(failures)
        assert one.offer() == pytest.approx(wait)
        one.now += wait
    assert {sent.id for sent in one.courier.sent} == {first.id}, "nothing passes it"
    assert one.results == [False] * 9
    assert wait == 600.0
    one.offer()
    one.answer()
    one.offer()
    one.answer("no")
    assert one.offer() == pytest.approx(notice_wait(1)), "a success ends the row of failures"


def test_a_courier_that_fails_altogether_is_a_failure() -> None:
    one = Telling()
    one.offer()
    one.courier.open[-1].set_exception(RuntimeError("bug"))
    assert one.results == [False]


def test_an_answer_for_an_index_that_is_gone_is_nobodys() -> None:
    one = Telling()
    one.offer()
    one.notices.forget(KEY)
    one.answer()
    assert (one.marked, one.notices.taken(KEY)) == ([], frozenset())


def test_without_a_webhook_nothing_is_told_and_nothing_is_noted() -> None:
    assert Notices().offer(KEY, told(), ()) is None
    plan = decide(SEEN, SETTINGS, NOW)
    assert (plan.status.notified, plan.notices) == (None, ())


# ---------------------------------------------------------------- on the wire


class Server:
    def __init__(self, status: int = 200, wait: threading.Event | None = None) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.seen.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
                if wait is not None:
                    wait.wait(20)
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def port() -> Any:
    one = AdminPort()
    yield one
    one.close()


def test_a_notice_is_a_cloud_event_with_a_signature_that_can_be_checked(port: AdminPort, tmp_path: Path) -> None:
    key = b"k" * 32
    (tmp_path / "key").write_text("whsec_" + base64.b64encode(key).decode() + "\n")
    back = told()[-1]
    with Server() as server:
        assert Webhook(Receiver(server.url, str(tmp_path), "cluster-1"), port.start).send(back).result(30) == ""
    ((headers, body),) = server.seen
    event = json.loads(body)
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "dev.vectorindex.traffic.rolledback", "a")
    assert (event["id"], event["time"]) == (back.id, back.at)
    assert event["source"] == f"/apis/vectorindex.dev/namespaces/{INDEX.namespace}/vectorindexes/{INDEX.name}"
    assert event["data"] == {
        "cluster": "cluster-1", "namespace": INDEX.namespace, "name": INDEX.name, "revision": "a", "before": "b",
        "outcome": "RollBack", "rule": "zero-results", "reason": "ZeroResultRate", "message": "too many",
    }  # fmt: skip
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("status", [204, 301, 400, 500])
def test_only_a_success_is_one(port: AdminPort, status: int) -> None:
    with Server(status) as server:
        problem = Webhook(Receiver(server.url), port.start).send(told()[0]).result(30)
    assert problem == ("" if status == 204 else f"the receiver answers with status {status}")
    assert len(server.seen) == 1, "no redirect is followed"
    assert "webhook-signature" not in server.seen[0][0]


def test_a_receiver_that_hangs_or_is_gone_is_given_up(port: AdminPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DEADLINE_SECONDS", 0.3)
    release = threading.Event()
    with Server(wait=release) as server:
        problem = Webhook(Receiver(server.url), port.start).send(told()[0]).result(30)
        release.set()
        gone = server.url
    assert problem == "no answer within 0.3 s"
    problem = Webhook(Receiver(gone), port.start).send(told()[0]).result(30)
    assert "cannot be reached" in problem
    assert "127.0.0.1" not in problem


def test_a_message_is_bounded() -> None:
    long = REJECTED.rejected
    assert long is not None
    status = REJECTED.model_copy(update={"rejected": long.model_copy(update={"message": "x" * 32_000})})
    assert len(cloud_event(notices(INDEX, {"b": status}, None)[0], "")) < 3000


def test_the_status_notes_what_was_taken_and_nothing_of_before() -> None:
    settings = replace(SETTINGS, notifies=True)
    first = decide(SEEN, settings, NOW)
    ids = tuple(sorted(one.id for one in first.notices))
    assert ids
    assert first.status.notified == ids, "what was there when telling began"
    fresh = replace(SEEN, index=replace(SEEN.index, status=first.status.model_copy(update={"notified": ()})))
    assert decide(fresh, settings, NOW).status.notified == ()
    assert decide(replace(fresh, taken=frozenset(ids)), settings, NOW).status.notified == ids
