"""VectorIndex.spec.rollout as pydantic models: how a proven revision gets the traffic. See spec.py for the rules."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vectorindex_operator.api.fields import CelRule, Duration, PositiveDuration
from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.route import Route, Step
from vectorindex_searcher.contract import Model


class Shadow(Model):
    """Before the switch the new revision answers live queries unseen, and its answers are compared with stable's. See
    docs/guardrails.md, "In shadow".
    """

    max_per_second: Annotated[int, Field(ge=0, le=100_000)] = 50
    """So many queries are compared a second, of all pods together; with fewer, all of them. 0: there is no shadow."""
    duration: PositiveDuration = "1m"
    """At least this long."""
    min_queries: Annotated[int, Field(ge=0, le=1_000_000_000)] = 300
    """And until this many queries were compared."""
    max_duration: PositiveDuration = "10m"
    """By then it is decided: what leaves queries unanswered or unknown is rejected; too little evidence: see below."""
    on_inconclusive: Literal["Switch", "Hold"] = "Switch"
    """Too little evidence at maxDuration. Switch: to the soak, and an Event says what was not compared. Hold: the new
    revision waits until there is more, or until the next one takes its place."""
    after_switch: bool | None = None
    """After the switch the direction turns: queries that the new revision answered go to the one before, as many a
    second, and rules against stable compare answers of the same moment. Absent: they compare with the time before the
    switch. See docs/guardrails.md, "After the switch"."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            # CEL's durations know no days. `has`: the API server checks the rule on defaults before it fills them.
            "!has(self.maxDuration) || (!self.maxDuration.contains('d')"
            " && duration(self.maxDuration) <= duration('50m'))",
            "shadow.maxDuration may be 50m at most: the searchers keep an hour of pairs",
            ".maxDuration",
        ),
        CelRule(
            "[has(self.duration) ? self.duration : '1m'].all(d, [has(self.maxDuration) ? self.maxDuration : '10m']"
            ".all(m, m.contains('d') || (!d.contains('d') && duration(d) <= duration(m))))",
            "shadow.duration must not be longer than shadow.maxDuration",
            ".duration",
        ),
    )


class Soak(Model):
    """How long the prior revision stays loaded after the switch, and how much evidence ends the soak."""

    duration: Duration = "15m"
    """At least this long."""
    min_queries: Annotated[int, Field(ge=0, le=1_000_000_000)] = 500
    """And until this many queries were answered."""
    max_duration: PositiveDuration = "6h"
    """Without enough evidence by then it goes on, and says so."""


class Rollout(Model):
    """How traffic moves to a new revision. Frozen into a revision when its rollout starts."""

    strategy: Literal["BlueGreen", "Canary"] = "BlueGreen"
    """BlueGreen: all traffic at once, the prior revision stays loaded. Canary: `steps` first, for what comes through
    the gateway of `route`; then the same."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10)] | None = None
    """Of strategy Canary, each with a larger weight than the one before."""
    route: Route | None = None
    """Absent: the operator keeps no HTTPRoute. Applies at once."""
    shadow: Shadow = Shadow()
    soak: Soak = Soak()
    progress_deadline: PositiveDuration = "10m"
    """From scheduling until all searchers of a revision are ready; then it is rejected."""
    keep_prior: Duration | None = None
    """After a promotion the prior revision stays loaded for so long, at the price of its pods: a rollback is one write
    then, as in the soak. 24h at most, as long as what was promoted is watched. Absent, or 0s: not at all, at once.
    """
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            # A bare 0 is a number. CEL's durations know no days. `has`: see above.
            "!has(self.keepPrior) || type(self.keepPrior) == int || self.keepPrior == '1d'"
            " || (!self.keepPrior.contains('d') && duration(self.keepPrior) <= duration('24h'))",
            "rollout.keepPrior may be 24h at most: so long a promoted revision is watched",
            ".keepPrior",
        ),
        CelRule(
            "(has(self.strategy) && self.strategy == 'Canary') == has(self.steps)",
            "strategy Canary needs steps, and steps need strategy: Canary",
            ".steps",
        ),
        CelRule(
            "!has(self.steps) || has(self.route)",
            "steps need route.parentRefs: weights are those of an HTTPRoute, and a Service has none",
            ".route",
        ),
        CelRule(
            "!has(self.steps) || self.steps.all(s, self.steps.filter(t, t.weight <= s.weight).size() =="
            " self.steps.map(t, t.weight).indexOf(s.weight) + 1)",
            "each step needs a larger weight than the one before",
            ".steps",
        ),
    )

    @property
    def keep_prior_seconds(self) -> float:
        """0: the prior is unloaded as soon as its connections have drained."""
        return duration_seconds(self.keep_prior) if self.keep_prior is not None else 0.0

    @property
    def shadows(self) -> bool:
        """Whether there is a shadow before the switch."""
        return self.shadow.max_per_second > 0

    @property
    def mirrors_after_switch(self) -> bool:
        """Whether a soak compares with what the prior answers meanwhile."""
        return self.shadows and bool(self.shadow.after_switch)

    @property
    def canary_steps(self) -> tuple[Step, ...]:
        """The steps before the switch; none: there are none."""
        return (self.steps or ()) if self.strategy == "Canary" and self.route is not None else ()
