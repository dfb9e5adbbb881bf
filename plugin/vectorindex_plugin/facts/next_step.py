"""What would happen next with an index if nobody did anything: one sentence, from phase and frozen settings.

It repeats what docs/concepts.md says of each phase, with this index's names and times; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import Rollout, RolloutStatus, VectorIndexSpec
from vectorindex_operator.core.judging.questions import STEADY_WATCH_SECONDS
from vectorindex_operator.core.look_times import look_times
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.phase import FAILED, Phase
from vectorindex_plugin.seen import Seen
from vectorindex_plugin.words import span


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a sentence is made of: the look, and the revision that it is about."""

    seen: Seen
    view: RevisionView

    @property
    def rollout(self) -> RolloutStatus | None:
        return self.view.status.rollout

    @property
    def settings(self) -> Rollout:
        if self.rollout is not None:
            return self.rollout.settings
        spec = self.seen.obs.index.spec
        return spec.rollout if spec is not None else Rollout()

    def within(self, since: str | None, duration: str) -> str:
        """When a duration that began at `since` is over."""
        left = (to_unix(since) if since else self.seen.now) + duration_seconds(duration) - self.seen.now
        return f"in {span(left)}" if left > 0 else "now"


def next_step(seen: Seen) -> str:
    """The sentence; never empty."""
    status, index = seen.status, seen.obs.index
    name = status.candidate or status.next
    view = seen.obs.revisions.get(name)
    pause = view.status.pause if view is not None else None
    if pause is not None and not pause.resumed:
        return f"{name} is held before its next step: it goes on with `resume`"
    if index.spec is not None and index.spec.suspend and not index.spec.pin_revision and not status.candidate:
        return "nothing new begins until spec.suspend is taken out (`unsuspend`)"
    if view is not None:
        sentence = SENTENCES.get(view.status.phase)
        return sentence(_Moment(seen, view)) if sentence is not None else f"{name} is in a phase of another release"
    if status.phase in FAILED or status.phase == "Stalled":
        return "nothing, until spec or data change, or you say `retry`"
    stable = seen.obs.revisions.get(status.stable)
    return _at_rest(seen, stable) if stable is not None else "the source is listed, and a first revision is made of it"


def _at_rest(seen: Seen, stable: RevisionView) -> str:
    spec = seen.obs.index.spec
    looks = _looks(spec, seen) if spec is not None and spec.source.looked_at else ""
    news = f"changed data, which is looked for {looks}, or" if looks else "only"
    sentence = f"{news} an edit of the spec makes a new revision"
    promoted = stable.status.promoted_at
    watched = to_unix(promoted) + STEADY_WATCH_SECONDS - seen.now if promoted else 0.0
    if watched > 0 and stable.status.rollout is not None and stable.status.rollout.prior:
        sentence += f"; for {span(watched)} more a guardrail that fails takes the traffic back"
    return sentence


def _looks(spec: VectorIndexSpec, seen: Seen) -> str:
    """When the source is looked at; by a schedule, also when it is next, which no status holds."""
    times = spec.source.schedule
    looked = look_times(spec, seen.obs.index.uid, seen.now)
    if times is None or looked is None:
        return f"every {spec.source.poll}"
    at = datetime.fromtimestamp(looked.next, ZoneInfo(times.time_zone))
    return f"at {times.cron!r} ({times.time_zone}; next {at:%Y-%m-%d %H:%M})"


def _shadow_or_switch(moment: _Moment) -> str:
    serving = moment.seen.serving
    if moment.settings.shadows and serving:
        return f"answers queries of {serving} in shadow"
    return "gets the traffic"


def _validated(moment: _Moment) -> str:
    serving = moment.seen.serving
    return f"its searchers are loaded{f' beside those of {serving}' if serving else ''}"


def _surging(moment: _Moment) -> str:
    started = moment.rollout.progress_since if moment.rollout is not None else None
    deadline = moment.within(started, moment.settings.progress_deadline)
    then = _shadow_or_switch(moment)
    return f"with all its pods ready it {then}; if they are not, it is given up {deadline} (SurgeFailed)"


def _shadowing(moment: _Moment) -> str:
    wanted = moment.settings.shadow
    shadow = moment.rollout.shadow if moment.rollout is not None else None
    if wanted is None or shadow is None:
        return "it gets the traffic once its shadow is over"
    until, end = (moment.within(shadow.started_at, one) for one in (wanted.duration, wanted.max_duration))
    most = "it is switched to all the same" if wanted.on_inconclusive == "Switch" else "it is held"
    return (
        f"it gets the traffic {until}, after {wanted.min_queries:,} compared queries, if no guardrail fails; "
        f"with too few of them {most} {end}"
    )


def _shifting(moment: _Moment) -> str:
    steps, rollout = moment.settings.canary_steps, moment.rollout
    where = rollout.steps if rollout is not None else None
    if where is None or where.number >= len(steps):
        return "it gets all of the traffic once its steps are over"
    step, further = steps[where.number], steps[where.number + 1 :]
    then = f"{further[0].weight} % of the gateway's traffic" if further else "all of the traffic"
    if where.started_at is None:
        return f"once the gateway routes {step.weight} % to it, that step begins; then it gets {then}"
    if step.pause:
        return f"it gets {then} once somebody says `resume`"
    until = moment.within(where.started_at, step.duration or "0s")
    return f"it gets {then} {until}, if every guardrail passes; one that fails takes its share away at once"


def _soaking(moment: _Moment) -> str:
    soak, rollout = moment.settings.soak, moment.rollout
    if rollout is None:
        return "it becomes Stable once its soak has passed"
    if rollout.trip is not None:
        return f"the traffic goes back as soon as a pod of {rollout.trip.target or rollout.prior or 'stable'} is ready"
    until = moment.within(rollout.switched_at, soak.duration)
    back = f"; one that fails takes the traffic back to {rollout.prior} at once" if rollout.prior else ""
    return f"it becomes Stable {until}, after {soak.min_queries:,} queries, if every guardrail passes{back}"


_Sentence = Callable[[_Moment], str]
SENTENCES: Mapping[str, _Sentence] = MappingProxyType(
    {
        Phase.PENDING: lambda moment: "a Job builds it",
        Phase.BUILDING: lambda moment: "once it is built, a Job measures its recall",
        Phase.VALIDATING: lambda moment: "its recall is judged by spec.gate: it is loaded, or Rejected",
        Phase.VALIDATED: _validated,
        Phase.SURGING: _surging,
        Phase.SHADOWING: _shadowing,
        Phase.SHIFTING: _shifting,
        Phase.SOAKING: _soaking,
        Phase.OUTGOING: lambda moment: "the next proven revision takes the traffic over from it",
        Phase.STABLE: lambda moment: _at_rest(moment.seen, moment.view),
        Phase.SUPERSEDED: lambda moment: "its searchers go once their connections have drained",
        Phase.RETIRED: lambda moment: "nothing: it can still be gone back to",
        Phase.REMOVING: lambda moment: "a Job removes its artifact",
        Phase.BUILD_FAILED: lambda moment: "its build is tried again, after a wait or when the spec changes",
        Phase.REJECTED: lambda moment: "nothing, until spec or data change, or you say `retry`",
        Phase.ROLLED_BACK: lambda moment: "nothing, until spec or data change, or you say `retry`",
        Phase.SURGE_FAILED: lambda moment: "nothing, until spec or data change, or you say `retry`",
    }
)
"""One for each phase (core/phase.py)."""
