"""Jobs of an index, how far each one is, and the Events about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.observation import JobState, JobView, Observation
from vectorindex_operator.reconcile import raw
from vectorindex_plugin.tones import Tone, tone

MOST_JOBS = 30
MOST_EVENTS = 100
_COUNTED = ("rows", "total")


@dataclass(frozen=True, slots=True)
class ProgressFacts:
    """What a Job's pod said last. `done` of `total` rows; None for a step that is not counted."""

    step: str
    done: int | None
    total: int | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """`expected_seconds`: what a Job of this task took last; None: none has ended. `why`: of a wait or a failure."""

    name: str
    task: str
    revision: str
    state: str
    tone: Tone
    device: str
    created_at: str
    finished_at: str | None
    expected_seconds: float | None
    why: str
    progress: ProgressFacts | None


@dataclass(frozen=True, slots=True)
class EventFacts:
    at: str
    reason: str
    note: str
    warning: bool


Words = Callable[[str], str]
"""Name of a pod -> the last lines of its log; empty where there are none, or they may not be read."""


def jobs(obs: Observation, words: Words) -> tuple[JobFacts, ...]:
    """The newest first. Only pods of Jobs that run are asked."""
    newest_first = sorted(obs.jobs, key=lambda job: job.created_at, reverse=True)[:MOST_JOBS]
    return tuple(_job(obs, job, words) for job in newest_first)


def _job(obs: Observation, job: JobView, words: Words) -> JobFacts:
    running = job.state is JobState.RUNNING
    waits = job.queued or job.unschedulable or job.waiting
    failure = f"{job.failure.reason}: {job.failure.message}" if job.failure is not None else ""
    return JobFacts(
        name=job.name,
        task=job.task.value,
        revision=job.revision,
        state="Waiting" if running and waits else job.state.value,
        tone=Tone.MOVING if running else tone(job.state.value),
        device=job.device,
        created_at=to_text(job.created_at),
        finished_at=to_text(job.finished_at) if job.finished_at is not None else None,
        expected_seconds=_expected(obs.jobs, job),
        why=waits or failure,
        progress=progress(words(_pod(obs, job))) if running and not waits and _pod(obs, job) else None,
    )


def _expected(all_jobs: Iterable[JobView], job: JobView) -> float | None:
    took = [
        (other.finished_at, other.finished_at - other.created_at)
        for other in all_jobs
        if other.task is job.task and other.state is JobState.SUCCEEDED and other.finished_at is not None
    ]
    return max(took)[1] if took else None


def _pod(obs: Observation, job: JobView) -> str:
    """Its newest pod; empty: it has none."""
    mine = [one for (kind, _), one in obs.objects.items() if kind == "Pod" and raw.is_owned(one, job.uid)]
    return raw.name(max(mine, key=lambda one: raw.text(raw.part(one, "metadata").get("creationTimestamp")), default={}))


def progress(log: str) -> ProgressFacts | None:
    """What the last line that counts rows says, or else the last line. Lines are JSON (vectorindex_searcher.progress);
    what is none is passed over: anybody may write to a log."""
    lines = [line for line in map(_line, log.splitlines()) if line]
    counted = next((line for line in reversed(lines) if all(isinstance(line.get(key), int) for key in _COUNTED)), None)
    if counted is not None:
        eta = counted.get("etaSeconds")
        left = float(eta) if isinstance(eta, int | float) else None
        return ProgressFacts(raw.text(counted.get("message"), 80), counted["rows"], counted["total"], left)
    return ProgressFacts(raw.text(lines[-1].get("message"), 80), None, None, None) if lines else None


def _line(text: str) -> Mapping[str, Any]:
    try:
        return raw.table(json.loads(text))
    except ValueError:
        return {}


def events(found: Iterable[Mapping[str, Any]]) -> tuple[EventFacts, ...]:
    """Of events.k8s.io, the newest first."""
    facts = [
        EventFacts(at, raw.text(one.get("reason"), 128), raw.text(one.get("note")), one.get("type") == "Warning")
        for one in found
        if raw.unix(at := _when(one)) is not None
    ]
    return tuple(sorted(facts, key=lambda one: one.at, reverse=True)[:MOST_EVENTS])


def _when(one: Mapping[str, Any]) -> str:
    """Ours have eventTime; others may have the field of the API before."""
    return raw.text(one.get("eventTime")) or raw.text(one.get("deprecatedLastTimestamp"))
