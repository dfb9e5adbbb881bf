"""Polls of the source on their way: what searchers are told in their pods, the question, the answer, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import write_parquet
from observations import DATA, NEW_DATA, NOW, SETTINGS, a_revision, actions, index, run, seen, source, spec
from pods_on_sockets import answering, dripping, server
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
from served import Published
from unit.test_internal_requests import MASTER, published, serving  # noqa: F401 - a fixture
from unit.test_lifecycle_polls import OF, QUIET, STABLE, look, polling
from waiting import until

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.adapters.source_looks import ANSWER_BYTES
from vectorindex_operator.api.v1alpha1 import Condition, SourcePoll, VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartResolve
from vectorindex_operator.core.progress.poll import MOST_ASKS
from vectorindex_operator.core.source_poll import Said, SourceAnswer, SourceQuestion, hear, told_text, wanted_text
from vectorindex_operator.manifests.render import render
from vectorindex_operator.manifests.sizing import LISTING_BYTES
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.polls import SourcePolls
from vectorindex_searcher.contract import (
    SOURCE_ENV,
    Identity,
    Location,
    ResolveTask,
    Target,
    key_id,
    revision_key,
    source_id,
)
from vectorindex_searcher.dataset.resolve import resolve

KEY = (NAMESPACE, NAME)
OWNER = Identity(namespace="team-a", name="docs", uid="uid-docs")
TO = Addressee(Target("uid-docs", "docs-1"), "uid-1")
QUESTION = SourceQuestion("docs-1", "pod-1", "127.0.0.1", "0" * 16, DATA, "job-1", 150.0)


# ---------------------------------------------------------------- what searchers are told


def container(of: VectorIndexSpec, view: RevisionView) -> dict[str, Any]:
    """The searcher of a stable revision, as its Deployment has it."""
    obs = seen(of, view, traffic=view)
    (action,) = actions(run(obs), EnsureSearchers)
    deployment = next(one for one in render(action, obs, of, SETTINGS) if one["kind"] == "Deployment")
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(one)


def told(one: dict[str, Any]) -> str:
    return next((str(entry["value"]) for entry in one["env"] if entry["name"] == SOURCE_ENV), "")


def frozen(of: VectorIndexSpec) -> SourcePoll | None:
    """What a revision that is made of a spec has."""
    action = CreateRevision("docs-1", "d" * 64, DATA, a_revision(of, "Pending").spec.served_as())
    (manifest,) = render(action, seen(of), of, SETTINGS)
    raw = manifest["spec"].get("sourcePoll")
    return None if raw is None else SourcePoll.model_validate(raw)


def test_a_revision_that_is_made_while_polling_is_on_tells_its_searchers_what_its_job_lists() -> None:
    of = spec(
        source={"tombstones": {"prefix": "docs/gone/"}},
        gate={"queries": {"s3": {"bucket": "vectors", "prefix": "docs/queries/", "secretRef": {"name": "s3"}}}},
    )
    (start,) = actions(run(seen(of, jobs=(), index=index(of))), StartResolve)
    view = a_revision(of, "Stable")
    view = replace(view, spec=view.spec.model_copy(update={"source_poll": frozen(of)}))
    listed = ResolveTask.model_validate_json(told(container(of, view)))
    parts = {"identity", "source", "artifacts", "tombstones", "queries"}
    assert listed.model_dump(include=parts) == start.task.model_dump(include=parts)
    assert "secretRef" not in told(container(of, view))


def test_polling_that_is_off_tells_searchers_of_no_source() -> None:
    of = spec(source={"poll": "0"})
    assert frozen(of) is None
    assert frozen(spec()) == SourcePoll()


def test_searchers_of_an_earlier_release_are_left_as_they_are() -> None:
    """Or an upgrade of the operator would restart every searcher of a cluster."""
    one = container(OF, a_revision(OF, "Stable"))
    assert told(one) == ""
    without, wanted = container(spec(), a_revision(spec(), "Stable")), container(spec(), polling(spec()))
    assert [entry["prefix"] for entry in without["envFrom"]] == ["ARTIFACTS_"]
    assert without["resources"]["requests"] == wanted["resources"]["requests"]
    limits = [int(each["resources"]["limits"]["memory"].removesuffix("Mi")) for each in (without, wanted)]
    assert limits[1] - limits[0] == LISTING_BYTES >> 20


def test_a_searcher_starts_without_the_keys_of_its_source() -> None:
    """Who removes them after the build must not find that no pod comes up again. Deleted ids are another matter: a
    searcher that cannot know them must not start."""
    keys = {entry["prefix"]: entry["secretRef"] for entry in container(spec(), polling(spec()))["envFrom"]}
    assert keys == {"ARTIFACTS_": {"name": "s3"}, "SOURCE_": {"name": "s3", "optional": True}}
    keys = {entry["prefix"]: entry["secretRef"] for entry in container(OF, polling(OF))["envFrom"]}
    assert keys == {"ARTIFACTS_": {"name": "s3"}, "SOURCE_": {"name": "s3"}}


def test_what_searchers_are_told_follows_access_and_not_the_place() -> None:
    view = polling(OF)
    moved = spec(source={"tombstones": {"prefix": "gone/"}, "s3": {"prefix": "new/"}}, **QUIET)
    reached = spec(
        source={"tombstones": {"prefix": "gone/"}, "s3": {"endpoint": "http://s3:9000", "secretRef": {"name": "new"}}},
        **QUIET,
    )
    assert told(container(moved, view)) == told(container(OF, view)) == wanted_text(OWNER, OF)
    assert wanted_text(OWNER, OF) != wanted_text(OWNER, moved)
    assert told(container(reached, view)) == wanted_text(OWNER, reached) != wanted_text(OWNER, OF)
    assert {"new"} == {e["secretRef"]["name"] for e in container(reached, view)["envFrom"] if e["prefix"] == "SOURCE_"}


def test_the_text_for_searchers_never_changes() -> None:
    """It is in their pods: another text for the same source restarts all searchers with an upgrade of the operator."""
    live = seen(OF, STABLE).index.live
    assert live is not None
    assert json.loads(told_text(OWNER, STABLE.spec, live)) == {
        "identity": {"namespace": "team-a", "name": "docs", "uid": "uid-docs"},
        "source": {"s3": {"bucket": "vectors", "prefix": "docs/"}},
        "artifacts": {"s3": {"bucket": "indexes"}},
        "tombstones": {"s3": {"bucket": "vectors", "prefix": "gone/"}},
    }
    assert source_id(told_text(OWNER, STABLE.spec, live)) == "82391528d762dac5"


# ---------------------------------------------------------------- the question, to a searcher as it is


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", np.eye(4, dtype=np.float32))
    return tmp_path


def test_the_operator_learns_from_a_searcher_whether_the_source_changed(published: Published, root: Path) -> None:  # noqa: F811
    place = Location(folder=str(root / "in"))
    of = ResolveTask(identity=OWNER, source=place, artifacts=Location(folder=str(root / "out")))
    text = of.task_text(first_release=False)
    question = replace(QUESTION, source=source_id(text), known=resolve(of).fingerprint, max_age=0.0)
    keys = InternalKeys(MASTER)
    with serving(published, TO.target, revision_key(MASTER, "uid-1"), **{SOURCE_ENV: text}) as searcher:
        operator = HttpSearchers(Signer(keys), admin_port=searcher.port("admin port open"))
        right = replace(TO, key_id=key_id(MASTER))

        def said(to: Addressee = right, about: SourceQuestion = question) -> Said:
            return hear(about, NOW, operator.source(to, about).result(), NOW).said

        until(lambda: said() is Said.SAME)
        assert said(TO) is Said.SILENT  # unsigned
        assert said(replace(right, target=Target("uid-b", "b-1"))) is Said.SILENT
        assert said(about=replace(question, source="1" * 16)) is Said.MISTOLD
        write_parquet(root / "in" / "b.parquet", np.eye(4, dtype=np.float32))
        until(lambda: said() is Said.CHANGED)  # at first it may tell what it listed within the last second


def test_a_searcher_that_lists_no_source_is_unable(published: Published) -> None:  # noqa: F811
    with serving(published, TO.target, "") as searcher:
        operator = HttpSearchers(Signer(), admin_port=searcher.port("admin port open"))
        assert operator.source(TO, QUESTION).result().unable


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (answering(b"x" * (ANSWER_BYTES + 1)), "larger than"),
        (answering(b"{" * 4000), "no look at a source"),
        (answering(b'{"pod": "p", "revision": "r", "source": "s", "ageSeconds": -1}'), "ageSeconds"),
        (answering(b'{"pod": "p", "revision": "r", "source": "s", "fingerprint": "%s"}' % (b"f" * 65)), "fingerprint"),
        (answering(b"no", status="403 Forbidden"), "status 403"),
        (dripping(b""), "no whole answer"),
    ],
)
def test_who_answers_nonsense_is_silent(handler: Any, problem: str) -> None:
    with server(handler) as port:
        answer = HttpSearchers(admin_port=port).source(TO, QUESTION).result()
    assert (answer.look, answer.unable) == (None, False)
    assert problem in answer.problem
    assert len(answer.problem) < 400


def test_what_a_newer_searcher_adds_is_passed_over() -> None:
    body = {"pod": "p", "revision": "docs-1", "source": "0" * 16, "fingerprint": DATA, "newer": [1]}
    with server(answering(json.dumps(body).encode())) as port:
        answer = HttpSearchers(admin_port=port).source(TO, QUESTION).result()
    assert hear(QUESTION, NOW, answer, NOW).said is Said.SAME


# ---------------------------------------------------------------- what was heard


class Answers(Silent):
    """Searchers whose answers about the source come when a test says so."""

    def __init__(self) -> None:
        self.questions: list[SourceQuestion] = []
        self.open: list[Future[SourceAnswer]] = []

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        self.questions.append(question)
        self.open.append(Future())
        return self.open[-1]


def polls(searchers: Answers, news: Callable[[str, str], None] = lambda *_: None) -> tuple[SourcePolls, list[Said]]:
    said: list[Said] = []
    return SourcePolls(searchers, news, said.append, lambda: NOW), said


def test_one_question_about_an_index_is_under_way_and_only_news_wakes_its_key() -> None:
    searchers, woken = Answers(), []
    kept, said = polls(searchers, lambda *key: woken.append(key))
    for asks in range(1, 4):
        kept.ask(KEY, TO, replace(QUESTION, asks=asks))
    assert (len(searchers.questions), kept.heard(KEY)) == (1, None)
    same = look(QUESTION, age_seconds=7.0)
    searchers.open[0].set_result(SourceAnswer(same))
    heard = kept.heard(KEY)
    assert heard is not None
    assert (heard.said, heard.since, woken) == (Said.SAME, NOW - 7.0, [])
    kept.ask(KEY, TO, QUESTION)
    searchers.open[1].set_result(SourceAnswer(look(QUESTION, NEW_DATA)))
    assert woken == [KEY]
    kept.ask(KEY, TO, QUESTION)
    searchers.open[2].set_exception(RuntimeError("a bug"))
    assert (woken, said) == ([KEY, KEY], [Said.SAME, Said.CHANGED, Said.SILENT])


def test_of_an_index_that_is_gone_nothing_is_kept() -> None:
    searchers, woken = Answers(), []
    kept, said = polls(searchers, lambda *key: woken.append(key))
    kept.ask(KEY, TO, QUESTION)
    kept.forget(KEY)
    searchers.open[0].set_result(SourceAnswer(look(QUESTION, NEW_DATA)))
    assert (kept.heard(KEY), woken, said) == (None, [], [])


# ---------------------------------------------------------------- the loop


def stored(view: RevisionView) -> Stored:
    done = Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z")
    status = VectorIndexStatus(source=source(OF), conditions=(done,))
    pods = [searcher_pod(view, number) for number in range(2)]
    objects = [index_raw(index(OF, status)), front_raw(view), revision_raw(view), deployment_raw(view), slice_raw(view)]
    return Stored(*objects, *pods)


class Told:
    """Events; nobody reads them here."""

    def send(self, regarding: Any, event: Any) -> None: ...


def looping(searchers: Answers, view: RevisionView = STABLE) -> tuple[Reconciler, Stored, list[float]]:
    """The loop over an idle index, after its first pass has written what there was to write."""
    cluster, clock = stored(view), [NOW]
    loop = Reconciler(cluster, searchers, Told(), SETTINGS, clock=lambda: clock[0])
    return loop, cluster, clock


def test_an_idle_index_costs_a_question_a_poll_and_no_write() -> None:
    searchers = Answers()
    loop, cluster, clock = looping(searchers)
    for _ in range(20):
        after = loop.run(*KEY).again_after
        assert after is not None
        for question, answer in zip(searchers.questions, searchers.open, strict=True):
            if not answer.done():
                answer.set_result(SourceAnswer(look(question)))
        clock[0] += after
        if len(searchers.questions) == 2:
            cluster.writes.clear()
    assert len(searchers.questions) > 15
    assert [one for one in cluster.writes if "Job" in one[1]] == []
    assert cluster.writes == []


def test_a_source_that_changed_is_listed_by_a_job_in_the_pass_that_the_answer_wakes() -> None:
    searchers = Answers()
    loop, cluster, _ = looping(searchers)
    while not searchers.questions:
        loop.run(*KEY)
    assert [one for one in cluster.writes if "Job" in one[1]] == []
    searchers.open[0].set_result(SourceAnswer(look(searchers.questions[0], NEW_DATA)))
    loop.run(*KEY)
    assert [verb for verb, name in cluster.writes if name.startswith("Job/")] == ["create"]


def test_an_operator_that_begins_anew_asks_and_starts_no_job() -> None:
    """What was heard was in its memory."""
    for _ in range(3):
        searchers = Answers()
        loop, cluster, _ = looping(searchers)
        loop.run(*KEY)
        loop.run(*KEY)
        assert len(searchers.questions) == 1
        assert [one for one in cluster.writes if "Job" in one[1]] == []


def test_pods_that_stay_silent_bring_back_the_job() -> None:
    searchers = Answers()
    loop, cluster, clock = looping(searchers)
    while not [one for one in cluster.writes if "Job" in one[1]]:
        after = loop.run(*KEY).again_after
        assert after is not None
        if searchers.open and not searchers.open[-1].done():
            searchers.open[-1].set_result(SourceAnswer(problem="no whole answer within 2 s"))
            continue
        clock[0] += after
        assert clock[0] < NOW + 120.0
    assert len(searchers.questions) == MOST_ASKS
