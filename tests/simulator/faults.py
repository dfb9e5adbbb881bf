"""What goes wrong in a run, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

ON_WRITE = ("crash before", "crash after", "lost answer", "conflict", "error", "refused", "pause")
REFUSED_KINDS = ("Job", "Deployment", "Service", "VectorIndexRevision", "VectorIndex", "PodDisruptionBudget")
READ_SECONDS = (0.1, 1.0, 5.0, 18.0)
"""An answer that takes 20 s is none any more (adapters/kube.py)."""


class CrashError(BaseException):
    """The process is gone. Not an Exception: nothing may catch it."""


@dataclass(slots=True)
class Faults:
    """What goes wrong, drawn from the seed. `single`: exactly one fault, at that write of all operators' writes."""

    rng: Random
    single: tuple[int, str] | None = None
    writes: float = 0.0
    reads: float = 0.0
    hung: float = 0.0
    """Of passes: before it the watches fall silent for a while."""
    slow: float = 0.0
    """Of reads: the world goes on before the answer is there."""
    lost_events: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    """Seconds at most until searchers answer; 0: they do at once."""
    pauses: tuple[float, ...] = (0.5, 3.0, 15.0, 40.0)
    """Seconds for which a write stands still."""
    lasts: tuple[float, float] = (60.0, 1200.0)
    """Seconds, at least and at most, until nothing goes wrong any more."""
    refused: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Kinds that a quota or admission keeps from being written, from when to when."""
    active: bool = True
    count: int = 0
    log: list[str] = field(default_factory=list)

    @classmethod
    def drawn(cls, rng: Random) -> Faults:
        """A third of the seeds has a single fault, at any write; the others have a mix of their own."""
        if rng.random() < 0.35:
            return cls(rng, single=(rng.randrange(1, 60), rng.choice(ON_WRITE)))

        def some(high: float) -> float:
            return rng.uniform(0.0, high) if rng.random() < 0.6 else 0.0

        return cls(
            rng,
            writes=some(0.25),
            reads=some(0.05),
            hung=some(0.08),
            lost_events=rng.choice((0.0, 0.2, 0.6, 1.0)),
            silent=some(0.1),
            slow=some(0.1),
        )

    @classmethod
    def none(cls, rng: Random) -> Faults:
        return cls(rng, active=False)

    def on_write(self) -> str:
        self.count += 1
        if not self.active:
            return ""
        if self.single is not None:
            return self.single[1] if self.count == self.single[0] else ""
        return self.rng.choice(ON_WRITE) if self.rng.random() < self.writes else ""

    def refuse(self, rng: Random, now: float) -> None:
        """One or two kinds cannot be written for a while: none of the operator's own state may rest on that."""
        for kind in rng.sample(REFUSED_KINDS, rng.randrange(1, 3)):
            begins = now + rng.uniform(0.0, 200.0)
            self.refused[kind] = (begins, begins + rng.uniform(10.0, 300.0))

    def is_refused(self, kind: str, now: float) -> bool:
        begins, ends = self.refused.get(kind, (0.0, 0.0))
        return self.active and begins <= now < ends

    def happens(self, share: float) -> bool:
        return self.active and share > 0 and self.rng.random() < share

    def read_takes(self) -> tuple[float, bool]:
        """Seconds until an answer is there, and whether it shows what was so when it was asked for."""
        if not self.happens(self.slow):
            return 0.0, False
        return self.rng.choice(READ_SECONDS), self.rng.random() < 0.5
