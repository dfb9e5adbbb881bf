"""The artifact that a rollback needs, on its way: the question, a searcher as it is, what is kept, what is written."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from dataset_files import write_parquet
from observations import (
    DATA,
    NOW,
    SETTINGS,
    index,
    source,
)
from pods_on_sockets import answering, server
from raw_objects import (
    NAME,
    NAMESPACE,
    Silent,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)
from unit.test_internal_requests import MASTER, published, serving  # noqa: F401 - a fixture
from unit.test_lifecycle_polls import OF, look
from unit.test_lifecycle_way_back_artifact import BEFORE, DIGEST, STABLE, artifact
from unit.test_searcher_serve_process import Published
from waiting import until

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.adapters.source_looks import ANSWER_BYTES
from vectorindex_operator.api.v1alpha1 import Condition, VectorIndexStatus
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.source_poll import Said, SourceAnswer, SourceQuestion, hear
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.polls import SourcePolls
from vectorindex_operator.telemetry import Metrics
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.contract import (
    SOURCE_ENV,
    Found,
    Identity,
    Location,
    ResolveTask,
    SourceLook,
    Target,
    key_id,
    revision_key,
    source_id,
)

KEY = (NAMESPACE, NAME)


# ---------------------------------------------------------------- the question, to a searcher as it is


def test_the_operator_learns_from_a_searcher_whether_an_artifact_is_there(published: Published, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", np.eye(4, dtype=np.float32))
    place, owner = Location(folder=str(tmp_path / "in")), Identity(namespace="team-a", name="docs", uid="uid-docs")
    text = ResolveTask(identity=owner, source=place, artifacts=place).task_text(first_release=False)
    to = Addressee(Target("uid-docs", "docs-1"), "uid-1", key_id(MASTER))
    question = SourceQuestion("docs-1", "pod-1", "127.0.0.1", source_id(text), DATA, "job-1", 0.0, artifact=DIGEST)
    store = published.task.artifacts.folder
    assert store is not None
    manifest = Path(store) / Layout("", published.task.identity).manifest(DIGEST)
    manifest.parent.mkdir(parents=True)
    with serving(published, to.target, revision_key(MASTER, "uid-1"), **{SOURCE_ENV: text}) as searcher:
        operator = HttpSearchers(Signer(InternalKeys(MASTER)), admin_port=searcher.port("admin port open"))

        def found(to: Addressee = to) -> Found | None:
            return hear(question, NOW, operator.source(to, question).result(), NOW).found

        until(lambda: found() is Found.ABSENT)
        assert found(replace(to, key_id="")) is Found.UNKNOWN  # unsigned
        manifest.write_bytes(b"{}")
        until(lambda: found() is Found.PRESENT)
        manifest.unlink()
        until(lambda: found() is Found.ABSENT)


def test_the_longest_answer_is_read() -> None:
    question = SourceQuestion("r" * 253, "p" * 253, "127.0.0.1", "0" * 16, DATA, "", 150.0, artifact=DIGEST)
    words: dict[str, Any] = {"reason": "x" * 64, "message": "\u0001" * 300}
    said = look(question, artifacts=True, artifact=artifact(Found.UNKNOWN, **words), **words)
    body = json.dumps(said.wire()).encode()
    assert len(body) > ANSWER_BYTES // 2
    with server(answering(body)) as port:
        answer = HttpSearchers(admin_port=port).source(
            Addressee(Target("uid-docs", question.revision), "uid-1"), question
        )
        assert answer.result().look == said


# ---------------------------------------------------------------- what was heard


class Answers(Silent):
    """Searchers that say of the artifact what a test says, and of the source that it is as it was."""

    def __init__(self) -> None:
        self.found: str = Found.PRESENT
        self.asked: list[str] = []

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        self.asked.append(question.artifact)
        said = artifact(self.found, question.artifact) if question.artifact else None
        done: Future[SourceAnswer] = Future()
        done.set_result(SourceAnswer(look(question, artifacts=True, artifact=said)))
        return done


def test_only_what_is_news_of_the_artifact_wakes_its_key() -> None:
    searchers, woken, metrics = Answers(), [], Metrics()
    said: list[Said] = []
    kept = SourcePolls(searchers, lambda *key: woken.append(key), said.append, lambda: NOW, metrics.on_artifact)
    question = SourceQuestion("docs-1", "pod-1", "127.0.0.1", "0" * 16, DATA, "", 150.0, artifact=DIGEST)
    to = Addressee(Target("uid-docs", "docs-1"), "uid-1")
    told_gone = replace(question, gone=True)
    turns: list[tuple[str, SourceQuestion, int]] = [
        (Found.PRESENT, question, 0),
        (Found.ABSENT, question, 1),
        (Found.ABSENT, told_gone, 1),
        (Found.UNKNOWN, told_gone, 1),
        (Found.PRESENT, told_gone, 2),
        (Found.UNKNOWN, question, 2),
        (Found.PRESENT, replace(question, artifact=""), 2),
    ]
    for searchers.found, about, wakes in turns:
        kept.ask(KEY, to, about)
        assert len(woken) == wakes
    assert set(said) == {Said.SAME}
    counted = {
        result: metrics.registry.get_sample_value("vectorindex_rollback_artifact_looks_total", {"result": result})
        for result in Found
    }
    assert counted == {"Present": 2.0, "Absent": 2.0, "Unknown": 2.0}


# ---------------------------------------------------------------- the loop


class Told:
    """Events, kept."""

    def __init__(self) -> None:
        self.events: list[EventReason] = []

    def send(self, regarding: Any, event: Event) -> None:
        self.events.append(event.reason)


def cluster() -> Stored:
    done = Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z")
    of = index(OF, VectorIndexStatus(source=source(OF), conditions=(done,)))
    objects = [index_raw(of), front_raw(STABLE), *map(revision_raw, (STABLE, BEFORE)), deployment_raw(STABLE)]
    return Stored(*objects, slice_raw(STABLE), *(searcher_pod(STABLE, number) for number in range(2)))


def test_an_artifact_that_goes_and_comes_back_costs_two_writes_each_time_and_rest_costs_none() -> None:
    stored, searchers, told_, clock = cluster(), Answers(), Told(), [NOW]

    def begun() -> Reconciler:
        return Reconciler(stored, searchers, told_, SETTINGS, clock=lambda: clock[0])

    def polls(loop: Reconciler, count: int) -> list[tuple[str, str]]:
        stored.writes.clear()
        until_asked = len(searchers.asked) + count
        while len(searchers.asked) < until_asked:
            wait = loop.run(*KEY).again_after
            assert wait is not None
            clock[0] += wait
        loop.run(*KEY)  # as an answer that is news marks the key
        return list(stored.writes)

    loop = begun()
    polls(loop, 3)  # what there was to write at first
    told_.events.clear()
    assert searchers.asked[-1] == DIGEST
    assert polls(loop, 3) == []
    searchers.found = Found.ABSENT
    both = [("status", f"VectorIndexRevision/{BEFORE.name}"), ("status", f"VectorIndex/{NAME}")]
    assert polls(loop, 2) == both
    assert polls(loop, 3) == []
    loop = begun()
    assert polls(loop, 4) == []
    searchers.found = Found.UNKNOWN
    assert polls(loop, 3) == []
    searchers.found = Found.PRESENT
    assert polls(loop, 2) == both
    assert polls(loop, 3) == []
    assert told_.events == [EventReason.WAY_BACK_ARTIFACT_GONE, EventReason.WAY_BACK_ARTIFACT_BACK]


def test_of_a_searcher_that_is_asked_what_it_does_not_know_nothing_is_lost() -> None:
    """As an image of before answers: 400 to the whole question."""
    with server(answering(b"{}", status="400 Bad Request")) as port:
        question = SourceQuestion("docs-1", "pod-1", "127.0.0.1", "0" * 16, DATA, "", 150.0, artifact=DIGEST)
        answer = HttpSearchers(admin_port=port).source(Addressee(Target("u", "docs-1"), "uid-1"), question).result()
    heard = hear(question, NOW, answer, NOW)
    assert (heard.said, heard.found, heard.able) == (Said.SILENT, Found.UNKNOWN, False)
    assert SourceLook.model_validate({"pod": "p", "revision": "r", "source": "s"}).artifacts is False
