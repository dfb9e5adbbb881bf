"""What a person asks for: an annotation or a field is written, and the operator's answer is waited for.

The operator decides. Nothing is checked here first: a refusal comes back in its own words.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.api.v1alpha1 import API_VERSION, VectorIndexStatus
from vectorindex_operator.core.commands import PREFIX
from vectorindex_operator.reconcile.errors import ConflictError
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_plugin.cluster import Hands
from vectorindex_plugin.exits import EndedError, Exit

LOOK_SECONDS = 0.5
"""Between two looks at the status."""
_FAULTS = frozenset({"PinnedRevisionNotFound", "PinnedRevisionNotProven", "InvalidSpec"})
"""Reasons with which the operator refuses a field that the API server has taken."""


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """What became of a request. `result`: Done, Refused, or Sent where nobody waited for the answer."""

    name: str
    verb: str
    nonce: str
    result: str
    message: str

    @property
    def exit(self) -> Exit:
        return Exit.REFUSED if self.result == "Refused" else Exit.DONE


@dataclass(slots=True)
class Asker:
    """Asks about one VectorIndex. `timeout`: seconds for an answer; 0: it is not waited for."""

    hands: Hands
    namespace: str
    name: str
    timeout: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    nonce: str = field(default_factory=lambda: f"{int(time.time())}-{secrets.token_hex(3)}")

    def command(self, verb: str, argument: str = "") -> AnswerFacts:
        """Write the annotation of a command. `argument`: the revision that it is about, or empty."""
        text = f"{argument}@{self.nonce}" if argument else self.nonce
        self._write({"metadata": {"annotations": {f"{PREFIX}{verb}": text}}})

        def answer(status: VectorIndexStatus) -> tuple[str, str] | None:
            said = (one for one in status.verbs if (one.verb, one.nonce) == (verb, self.nonce))
            return next(((one.result, one.message) for one in said), None)

        return self._answered(verb, answer)

    def set_field(self, verb: str, name: str, value: object) -> AnswerFacts:
        """Write a field of the spec (None: take it out); answered as soon as a pass has seen it."""
        generation = int(self._write({"spec": {name: value}})["metadata"]["generation"])

        def answer(status: VectorIndexStatus) -> tuple[str, str] | None:
            if status.observed_generation < generation:
                return None
            rolled_out = next((one.message for one in status.conditions if one.type == "RolledOut"), "")
            return "Refused" if status.reason in _FAULTS else "Done", rolled_out or status.reason

        return self._answered(verb, answer)

    def _write(self, change: Raw) -> Raw:
        meta = {**change.get("metadata", {}), "name": self.name, "namespace": self.namespace}
        try:
            return self.hands.merge({"apiVersion": API_VERSION, "kind": "VectorIndex", **change, "metadata": meta})
        except ConflictError as error:
            raise self._gone() from error

    def _gone(self) -> EndedError:
        return EndedError(Exit.NOT_FOUND, f"there is no VectorIndex {self.name!r} in namespace {self.namespace!r}")

    def _answered(self, verb: str, answer: Callable[[VectorIndexStatus], tuple[str, str] | None]) -> AnswerFacts:
        if not self.timeout:
            return AnswerFacts(self.name, verb, self.nonce, "Sent", "nobody waits for the answer: see status.verbs")
        deadline = self.clock() + self.timeout
        while True:
            raw = self.hands.get("VectorIndex", self.namespace, self.name)
            if raw is None:
                raise self._gone()
            status = VectorIndexStatus.read(raw.get("status") or {})
            said = answer(status)
            if said is not None:
                return AnswerFacts(self.name, verb, self.nonce, *said)
            if self.clock() >= deadline:
                raise EndedError(Exit.NO_ANSWER, self._silence(verb, status))
            self.sleep(LOOK_SECONDS)

    def _silence(self, verb: str, status: VectorIndexStatus) -> str:
        """Why there may be no answer: the request stays written, and is answered later."""
        whose = f"operator class {status.operator!r}" if status.operator else "no operator has claimed this index"
        refused = [
            f"{row.rule} {row.subject}: {row.message}" for row in status.blocked_by if row.rule == "WriteRefused"
        ]
        why = "; ".join([whose, *refused])
        return f"{verb} is written (nonce {self.nonce}) and not answered within {self.timeout:g} s: {why}"
