"""Fresh rows in the control plane: who is told of them, what is asked, when a build has them, when they are off."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    built,
    condition,
    index,
    listing,
    loaded,
    resolved,
    run,
    said,
    seen,
    source,
    spec,
    with_rollout,
    with_spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import FreshStatus, Live, SourcePoll, VectorIndexSpec
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.fresh_looks import UNKNOWN_TO_IMAGE, FreshAnswer, FreshHeard
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.observation import JobState, Observation, RevisionView
from vectorindex_operator.core.plan import (
    CreateRevision,
    EnsureSearchers,
    MoveTraffic,
    Plan,
    StartResolve,
    SwitchFreshOff,
    WriteRevisionStatus,
)
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import (
    FRESH_COPIES,
    FRESH_ENV,
    Evidence,
    EvidenceBucket,
    FreshLook,
    FreshTask,
    RefusedFile,
    most_fresh,
)

POLL = 60.0
BARE: dict[str, Any] = {"source": {"poll": "1m", "minInterval": "0s"}, "guardrails": {"rules": []}}
WITHOUT = spec(**BARE)
OF = spec(**{**BARE, "source": {**BARE["source"], "fresh": {"prefix": "fresh/", "maxRows": 500}}})
STABLE = a_revision(OF, "Stable")
BAD = RefusedFile(object="fresh/7.jsonl", reason="DimensionMismatch", message="7.jsonl holds vectors of dimension 3")


def quiet(of: VectorIndexSpec = OF, view: RevisionView = STABLE, **changes: Any) -> Observation:
    """Stable serves; the source was listed a moment ago."""
    return seen(of, view, **({"traffic": view, "jobs": (listing(of, finished_at=NOW - 1),)} | changes))


def told(obs: Observation, look: FreshLook | FreshAnswer, now: float = NOW) -> Observation:
    """The world in which the question of a pass was answered so."""
    question = run(obs, now).ask_fresh
    assert question is not None
    answer = look if isinstance(look, FreshAnswer) else FreshAnswer(look)
    return replace(obs, heard_fresh=FreshHeard(question, now, answer))


def knows(**changes: Any) -> FreshLook:
    return FreshLook(**({"number": 4, "rows": 30, "files": 2} | changes))


def fresh_rows(plan: Plan) -> tuple[str, str, str]:
    return condition(plan.status, "FreshRows")


def events(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events]


# ---------------------------------------------------------------- identity


def test_fresh_rows_change_no_hash() -> None:
    for of in (identity.source_hash, identity.gate_hash, identity.thresholds_hash, identity.build_hash):
        assert of(OF) == of(WITHOUT)
    assert identity.digest(OF, DATA) == identity.digest(WITHOUT, DATA)
    assert identity.live_hash(Live.of(OF)) != identity.live_hash(Live.of(WITHOUT)), "pods are replaced one by one"
    assert "fresh" not in Live.of(WITHOUT).wire()


# ---------------------------------------------------------------- what searchers are told


def container(of: VectorIndexSpec, view: RevisionView) -> dict[str, Any]:
    obs = quiet(of, view)
    (action,) = actions(run(obs), EnsureSearchers)
    deployment = next(one for one in render(action, obs, of, SETTINGS) if one["kind"] == "Deployment")
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(one)


def env(one: dict[str, Any]) -> FreshTask | None:
    texts = [entry["value"] for entry in one["env"] if entry["name"] == FRESH_ENV]
    return FreshTask.model_validate_json(texts[0]) if texts else None


def test_searchers_are_told_where_fresh_rows_are_and_get_the_keys_of_the_source() -> None:
    one = container(OF, STABLE)
    task = env(one)
    assert task is not None
    assert (task.place, task.max_rows, task.poll_seconds) == (OF.source.place.at("fresh/").location(), 500, POLL)
    assert task.columns == OF.source.columns
    keys = {"prefix": "SOURCE_", "secretRef": {"name": "s3", "optional": True}}
    assert keys in one["envFrom"], "rows that cannot be read must not keep an index from coming up"
    assert "secretRef" not in str(one["env"])


def test_without_them_pods_are_what_they_were() -> None:
    one = container(WITHOUT, a_revision(WITHOUT, "Stable"))
    assert env(one) is None
    assert [keys["prefix"] for keys in one["envFrom"]] == ["ARTIFACTS_"]


def test_an_index_of_other_rows_answers_none_of_these() -> None:
    elsewhere = spec(**{**BARE, "source": {**BARE["source"], "s3": {"prefix": "other/"}}})
    assert env(container(OF, a_revision(elsewhere, "Stable"))) is None


FOLDER = {"s3": {"bucket": "models", "prefix": "minilm/"}, "sha256": "1f" * 32}


def in_words(prefix: str | None = "passage: ", query: str | None = None, **onnx: Any) -> VectorIndexSpec:
    """The same with an encoder of queries in words, which the gate compares with the rows' texts."""
    encoder = {"onnx": FOLDER | onnx, "textColumn": "text"}
    prefixes = {"documentPrefix": prefix, "queryPrefix": query}
    columns = {"id": "id", "vector": "vector", "metadata": ["text"]}
    return spec(
        **{**BARE, "source": {**OF.source.wire(), "columns": columns}},
        embedding={"encoder": encoder, **{name: value for name, value in prefixes.items() if value is not None}},
    )


def test_searchers_are_told_which_texts_their_encoder_compares_and_what_stands_before_them() -> None:
    words = in_words()
    task = env(container(words, a_revision(words, "Stable")))
    assert task is not None
    assert (task.text_column, task.document_prefix) == ("text", "passage: ")
    plain = env(container(OF, STABLE))
    assert plain is not None
    assert (plain.text_column, plain.document_prefix) == ("", None)
    assert identity.live_hash(Live.of(words)) != identity.live_hash(Live.of(in_words("other: ")))
    assert identity.live_hash(Live.of(words)) == identity.live_hash(Live.of(in_words(query="query: ")))


def test_an_encoder_of_before_compares_nothing_by_the_prefix_of_todays() -> None:
    before = in_words(sha256="2f" * 32)
    task = env(container(in_words("passage: "), a_revision(before, "Stable")))
    assert task is not None
    assert (task.text_column, task.document_prefix) == ("", None)
    other_queries = env(container(in_words(), a_revision(in_words(query="query: "), "Stable")))
    assert other_queries is not None
    assert other_queries.text_column == "text", "what stands before queries is no matter"


def test_the_memory_of_a_pod_has_room_for_as_many_as_there_may_be() -> None:
    def limit(of: VectorIndexSpec) -> int:
        return int(container(of, a_revision(of, "Stable"))["resources"]["limits"]["memory"].removesuffix("Mi"))

    many = spec(**{**BARE, "source": {**BARE["source"], "fresh": {"prefix": "fresh/"}}})
    assert limit(WITHOUT) < limit(OF) <= limit(many) < limit(WITHOUT) + 22, "5 % of 10,000 rows of 8 numbers"
    rows, held = most_fresh(50_000, 10_000)
    assert recipe.fresh_bytes(STABLE.spec, Live.of(many), built(count=10_000)) == FRESH_COPIES * (32 * rows + held)


def test_a_job_is_told_where_they_are() -> None:
    (start,) = actions(run(seen(OF, jobs=(), index=index(OF))), StartResolve)
    assert start.task.fresh == OF.source.place.at("fresh/").location()


# ---------------------------------------------------------------- what is asked, and said


def test_one_searcher_of_those_that_serve_is_asked_once_a_poll() -> None:
    assert run(quiet(WITHOUT, a_revision(WITHOUT, "Stable"))).ask_fresh is None
    obs = quiet()
    plan = run(obs)
    assert plan.ask_fresh is not None
    assert plan.ask_fresh.pod in [pod.name for pod in loaded(STABLE).pods]
    assert fresh_rows(plan)[:2] == ("Unknown", "NotHeard")
    assert plan.requeue_after <= POLL
    heard = told(obs, knows())
    assert run(heard, NOW + POLL - 1).ask_fresh is None
    assert run(heard, NOW + POLL).ask_fresh is not None


def test_what_it_says_is_in_the_status_and_costs_nothing_while_it_stays_the_same() -> None:
    obs = told(quiet(), knows())
    plan = run(obs)
    assert plan.status.fresh == FreshStatus(revision=STABLE.name, number=4, rows=30, files=2)
    assert fresh_rows(plan) == ("True", "Answered", "30 rows of 2 files, snapshot 4")
    assert not plan.events
    assert not actions(plan, StartResolve)
    again = run(told(after(obs, plan), knows(), NOW + POLL), NOW + POLL)
    assert again.status == plan.status
    heard = told(after(obs, plan), knows(), NOW + POLL).heard_fresh
    assert heard is not None
    assert not heard.news


def test_who_says_nothing_takes_nothing_back() -> None:
    obs = told(quiet(), knows())
    obs = after(obs, run(obs))
    plan = run(told(obs, FreshAnswer(problem="no answer"), NOW + POLL), NOW + POLL)
    assert plan.status.fresh == obs.index.status.fresh


def test_what_another_revision_said_is_forgotten() -> None:
    obs = quiet()
    other = with_spec(obs, status=obs.index.status.model_copy(update={"fresh": FreshStatus(revision="docs-b", rows=9)}))
    plan = run(other)
    assert plan.status.fresh is None
    assert fresh_rows(plan)[1] == "NotHeard"


def test_a_refused_file_is_named_with_what_to_do_and_told_once() -> None:
    obs = told(quiet(), knows(refused=(BAD,), reason="DimensionMismatch"))
    plan = run(obs)
    status, reason, message = fresh_rows(plan)
    assert (status, reason) == ("False", "FileRefused")
    for words in ("fresh/7.jsonl: DimensionMismatch", "dimension 3", "as other files are", "until it is repaired"):
        assert words in message
    assert message.endswith("the next build leaves it out; answered are 30 rows of 2 files, snapshot 4")
    assert events(plan) == ["FreshFileRefused"]
    assert all(event.warning for event in plan.events)
    later = told(after(obs, plan), knows(rows=31, refused=(BAD,), reason="DimensionMismatch"), NOW + POLL)
    assert not run(later, NOW + POLL).events


def test_an_image_that_knows_no_fresh_rows_is_told_apart() -> None:
    plan = run(told(quiet(), FreshAnswer(problem="404", unable=True)))
    assert fresh_rows(plan)[:2] == ("False", UNKNOWN_TO_IMAGE)
    assert "`refresh`" in fresh_rows(plan)[2]


def test_a_store_that_refuses_is_told() -> None:
    plan = run(told(quiet(), knows(reason="AccessDenied", message="no right to write")))
    assert fresh_rows(plan) == (
        "False",
        "AccessDenied",
        "no right to write; answered are 30 rows of 2 files, snapshot 4",
    )


def test_taken_out_of_the_spec_nothing_of_it_is_left() -> None:
    obs = told(quiet(), knows())
    plan = run(obs)
    without = with_spec(after(obs, plan), spec=WITHOUT)
    assert run(without).status.fresh is None
    assert fresh_rows(run(without)) == ("", "", "")


# ---------------------------------------------------------------- builds


def full(number: int = 4) -> Observation:
    return told(quiet(), knows(number=number, full=True, reason="TooManyFreshRows"))


def test_too_many_rows_have_the_source_listed_once_for_a_build() -> None:
    obs = full()
    plan = run(obs)
    (start,) = actions(plan, StartResolve)
    assert "/fresh-4" in start.key
    assert events(plan) == ["FreshRowsFull"]
    assert fresh_rows(plan)[:2] == ("False", "Full")
    done = listing(OF, NEW_DATA, key=start.key, finished_at=NOW, result=resolved(NEW_DATA, source=DATA, fresh=3))
    plan = run(replace(after(obs, plan), jobs=(done,)), NOW + 2)
    assert not actions(plan, StartResolve)
    (made,) = actions(plan, CreateRevision)
    assert made.fingerprint == NEW_DATA
    kept = plan.status.source
    assert kept is not None
    assert (kept.fingerprint, kept.source, kept.fresh) == (NEW_DATA, DATA, 3)


def test_files_that_come_meanwhile_start_no_other_listing() -> None:
    """Each would be a revision in the place of the one that is being built."""
    obs = full()
    plan = run(obs)
    (start,) = actions(plan, StartResolve)
    done = listing(OF, key=start.key, finished_at=NOW)
    look = knows(number=5, full=True, reason="TooManyFreshRows")
    later = told(replace(after(obs, plan), jobs=(done,)), look, NOW + POLL)
    plan = run(later, NOW + POLL)
    keys = [start.key for start in actions(plan, StartResolve)]  # of the source's own poll
    assert not any("fresh-" in key for key in keys)
    status = plan.status.fresh
    assert status is not None
    assert (status.number, status.full_since) == (5, 4)
    assert run(told(after(later, plan), knows(number=6), NOW + 2 * POLL), NOW + 2 * POLL).status.fresh == (
        status.model_copy(update={"number": 6, "full": False, "full_since": None, "reason": ""})
    )


def test_while_the_listing_fails_it_is_tried_as_ever() -> None:
    obs = full()
    plan = run(obs)
    (start,) = actions(plan, StartResolve)
    failed = listing(OF, key="x", created_at=NOW, finished_at=NOW, state=JobState.FAILED, result=None)
    failed = replace(failed, key=start.key)
    once = run(replace(after(obs, plan), jobs=(failed,)), NOW + 1)
    assert condition(once.status, "DatasetResolved")[0] == "False"
    waits = replace(failed, key=f"{identity.source_hash(OF)}/docs-resolve-1", failures=1)
    again = run(replace(after(replace(after(obs, plan), jobs=(failed,)), once), jobs=(waits,)), NOW + 2)
    assert not actions(again, StartResolve)


def listed_with(result: Any, key: str = "", now: float = NOW) -> Plan:
    """A Job looked for another reason, and found this."""
    job = listing(OF, key=f"{identity.source_hash(OF)}/{key}", finished_at=now - 1, result=result)
    return run(quiet(jobs=(job,)), now)


def test_other_fresh_files_alone_are_built_by_nobody() -> None:
    plan = listed_with(resolved(NEW_DATA, source=DATA, fresh=1))
    assert plan.status.source == quiet().index.status.source
    assert not actions(plan, CreateRevision)


def test_a_build_that_is_due_takes_them_in() -> None:
    plan = listed_with(resolved(NEW_DATA, source="d3" * 32, fresh=1))
    (made,) = actions(plan, CreateRevision)
    assert made.fingerprint == NEW_DATA


def test_a_build_that_failed_is_made_of_what_is_listed_next() -> None:
    """Or a fresh file that a build found to be bad would hold up the index until the source changes."""
    broken = a_revision(OF, "BuildFailed", data=NEW_DATA)
    job = listing(OF, finished_at=NOW - 1, result=resolved("d4" * 32, source=DATA, fresh=1))
    obs = seen(OF, STABLE, broken, traffic=STABLE, data=NEW_DATA, jobs=(job,))
    before = source(OF, NEW_DATA).model_copy(update={"source": DATA, "fresh": 1})
    plan = run(with_spec(obs, status=obs.index.status.model_copy(update={"source": before})))
    assert [one.fingerprint for one in actions(plan, CreateRevision)] == ["d4" * 32]


def test_polls_compare_the_source_alone() -> None:
    result = resolved(NEW_DATA, source=DATA, fresh=1)
    view = a_revision(OF, "Stable", data=NEW_DATA)
    view = replace(view, spec=view.spec.model_copy(update={"source_poll": SourcePoll()}))
    known = source(OF, NEW_DATA).model_copy(update={"source": DATA, "fresh": 1})
    for jobs in ((listing(OF, finished_at=NOW - HOUR, created_at=NOW - HOUR, result=result),), ()):
        obs = seen(OF, view, traffic=view, data=NEW_DATA, jobs=jobs)
        plan = run(with_spec(obs, status=obs.index.status.model_copy(update={"source": known})))
        assert plan.ask is not None
        assert plan.ask.known == DATA


def test_at_its_times_a_schedule_takes_them_in() -> None:
    of = spec(**{**BARE, "source": {"poll": "1m", "schedule": {"cron": "0 * * * *"}, "fresh": {"prefix": "fresh/"}}})
    view = a_revision(of, "Stable")
    job = listing(of, created_at=NOW - 2 * HOUR, finished_at=NOW - 2 * HOUR)
    obs = quiet(of, view, jobs=(job,))
    old = source(of).model_copy(update={"at": to_text(NOW - 3 * HOUR)})
    obs = with_spec(obs, status=obs.index.status.model_copy(update={"source": old}))
    (start,) = actions(run(told(obs, knows())), StartResolve)
    assert "/fresh-at-" in start.key
    assert not [one for one in actions(run(told(obs, knows(files=0, rows=0))), StartResolve) if "fresh-" in one.key]


# ---------------------------------------------------------------- guardrails

ERRORS = {"name": "errors", "metric": "ErrorRate", "max": "2%", "window": "1m", "warmUp": "0s", "consecutive": 1}
RULED = spec(**{**BARE, "source": {"poll": "1m", "fresh": {"prefix": "fresh/"}}, "guardrails": {"rules": [ERRORS]}})
SINCE = NOW - 600
PRIOR = a_revision(RULED, "Superseded", data=NEW_DATA, created=SINCE - HOUR)
WATCHED = with_rollout(a_revision(RULED, "Stable", created=SINCE), prior=PRIOR.name)


def counts(view: RevisionView, now: float = NOW, errors: int = 50, fresh: int = 12) -> tuple[PodEvidence, ...]:
    """Half of all queries of the last ten minutes failed."""
    rows = tuple(
        EvidenceBucket(
            bucket=b, segment="other", requests=100, queries=100, failed_requests=errors, errors=errors,
            latency={188: 100}, fresh_queries=fresh,
        )
        for b in range(int((now - 600) // 5), int(now // 5))
    )  # fmt: skip
    names = [f"{view.name}-{number}" for number in range(2)]
    return tuple(
        PodEvidence(name, PodCounts.of(Evidence(pod=name, revision=view.name, now=now, buckets=rows)), now)
        for name in names
    )


def watched(view: RevisionView = WATCHED, reason: str = "", now: float = NOW) -> Observation:
    obs = seen(RULED, view, PRIOR, traffic=view, evidence={view.name: counts(view, now)})
    obs = replace(obs, loaded={**obs.loaded, PRIOR.name: loaded(PRIOR)})
    known = FreshStatus(revision=view.name, number=7, reason=reason)
    return with_spec(obs, status=obs.index.status.model_copy(update={"fresh": known}))


def test_what_fails_with_fresh_rows_is_judged_without_them_first() -> None:
    obs = watched()
    plan = run(obs)
    assert not actions(plan, MoveTraffic)
    assert "FreshRowsOff" in events(plan)
    (off,) = actions(plan, SwitchFreshOff)
    assert (off.revision, len(off.addresses)) == (WATCHED.name, 2)
    status, reason, message = fresh_rows(plan)
    assert (status, reason) == ("False", "SwitchedOff")
    assert "errors" in message
    assert "; 12.00% of 24000 queries found fresh rows (snapshot 7)" in message
    assert "`retry`" in message
    # What was counted before says nothing of the artifact alone; what fails without them is the revision's.
    now = NOW + 5
    assert not actions(run(after(obs, plan), now), MoveTraffic)
    later = after(obs, plan)
    later = replace(later, evidence={WATCHED.name: counts(WATCHED, NOW + 200)})
    plan = run(later, NOW + 200)
    assert [one.decision.to_revision for one in actions(plan, MoveTraffic)] == [PRIOR.name]


def test_searchers_that_know_none_go_back_at_once() -> None:
    plan = run(watched(reason=UNKNOWN_TO_IMAGE))
    assert [one.decision.to_revision for one in actions(plan, MoveTraffic)] == [PRIOR.name]
    assert not actions(plan, SwitchFreshOff)


def test_a_candidate_goes_back_at_once_whatever_is_among_its_answers() -> None:
    stable = a_revision(RULED, "Stable", data=NEW_DATA, created=SINCE - HOUR)
    soaks = with_rollout(a_revision(RULED, "Soaking", created=NOW - 120), prior=stable.name)
    obs = seen(RULED, soaks, stable, traffic=soaks, evidence={soaks.name: counts(soaks)})
    known = FreshStatus(revision=soaks.name, number=4, rows=30, files=2)
    plan = run(with_spec(obs, status=obs.index.status.model_copy(update={"fresh": known})))
    assert [one.decision.to_revision for one in actions(plan, MoveTraffic)] == [stable.name]


@pytest.fixture
def off() -> Observation:
    """Fresh rows are off since a minute ago, and all is well."""
    obs = watched()
    obs = after(obs, run(obs))
    return replace(obs, evidence={WATCHED.name: counts(WATCHED, NOW + 60, errors=0)})


def test_pods_are_told_at_each_look_and_the_next_revision_answers_them_again(off: Observation) -> None:
    assert len(actions(run(off, NOW + 60), SwitchFreshOff)) == 1
    other = replace(off, loaded={PRIOR.name: loaded(PRIOR)})
    assert not actions(run(other, NOW + 60), SwitchFreshOff)


def test_a_person_has_them_answered_again(off: Observation) -> None:
    asked = with_spec(off, commands=(Command("retry", "", "n1"),))
    plan = run(asked, NOW + 60)
    assert said(plan) == ("Done", f"{WATCHED.name} answers fresh rows again")
    assert not actions(plan, SwitchFreshOff)
    (written,) = [one for one in actions(plan, WriteRevisionStatus) if one.revision == WATCHED.name]
    assert written.status.fresh_off is not None
    assert written.status.fresh_off.ended == "n1"
    # The operator died before it could say so: one request is one answer.
    lost = with_spec(after(asked, plan), status=off.index.status, commands=asked.index.commands)
    assert said(run(lost, NOW + 61))[0] == "Done"
    # What is bad again from then on is seen again, and not by what was counted before.
    after_it = after(asked, plan)
    after_it = replace(after_it, evidence={WATCHED.name: counts(WATCHED, NOW + 300)})
    assert len(actions(run(with_spec(after_it, commands=()), NOW + 300), SwitchFreshOff)) == 1


def test_a_status_from_before_reads_as_ever() -> None:
    wire = json.loads(json.dumps(source(OF).wire()))
    assert not {"source", "fresh"} & set(wire)
