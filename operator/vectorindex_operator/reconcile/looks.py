"""Looks at pods, off the workers: a pass never waits for pods, so that slow pods hold up nobody.

A pass that wants to know what pods counted asks, and ends. When the answers are there its key is marked, and the pass
that follows decides on them, as fresh as they are. The answers of one look serve one run: a pass on what the cache says
and the live one that it may lead to. At most one look at an index is under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from vectorindex_operator.core.internal_keys import Addressee, addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion
from vectorindex_operator.core.judging.questions import Purpose, Question, questions
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.judging.sums import KeptSums, Sums
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.reconcile.ports import Figures, Searchers
from vectorindex_searcher.contract import BUCKET_SECONDS

Key = tuple[str, str]
Told = tuple[PodEvidence, ...] | tuple[PodPairs, ...] | tuple[FigureAnswer, ...]
Answers = Mapping[Question, Told]


NO_SERVER = (
    "this installation asks no Prometheus: set prometheus.url in the chart (VECTORINDEX_PROMETHEUS_URL), or remove the "
    "rule"
)


class NoFigures:
    """Implements ports.Figures where no server is set."""

    def ask(self, namespace: str, questions: Sequence[FigureQuestion]) -> Future[tuple[FigureAnswer, ...]]:  # noqa: ARG002
        answered: Future[tuple[FigureAnswer, ...]] = Future()
        answered.set_result((FigureAnswer(problem=NO_SERVER),) * len(questions))
        return answered


class AskedError(Exception):
    """Pods were asked, and the pass goes on when they have answered. No ClusterError: nothing went wrong."""


@dataclass(frozen=True, slots=True)
class _Asked:
    to: Addressee
    question: Question
    answers: Future[tuple[PodEvidence, ...]] | Future[tuple[PodPairs, ...]] | Future[tuple[FigureAnswer, ...]]

    def covers(self, to: Addressee, question: Question) -> bool:
        """Whether its answers are those that this question would get. The times that it asks about move on with it."""
        mine = self.question
        return (self.to, _timeless(mine)) == (to, _timeless(question)) and (
            mine.since < question.since + BUCKET_SECONDS
        )


def _timeless(question: Question) -> Question:
    figures = tuple(replace(one, first=0.0, last=0.0) for one in question.figures)
    return replace(question, since=0.0, figures=figures)


@dataclass(frozen=True, slots=True)
class _Look:
    began: float
    asked: tuple[_Asked, ...]

    @property
    def over(self) -> bool:
        return all(one.answers.done() for one in self.asked)

    def answers(self, wanted: Sequence[tuple[Addressee, Question]]) -> Answers | None:
        """None: something else was asked."""
        found = {
            question: next((one for one in self.asked if one.covers(to, question)), None) for to, question in wanted
        }
        known: dict[Question, Told] = {
            question: one.answers.result() for question, one in found.items() if one is not None
        }
        return known if len(known) == len(found) else None


@dataclass(slots=True)
class Looks:
    """The looks of all passes. One key has one pass at a time (queue.py); different keys at once are fine."""

    searchers: Searchers
    on_answer: Callable[[str, str], None] = lambda namespace, name: None
    """What a pass asked is answered."""
    figures: Figures = field(default_factory=NoFigures)
    _looks: dict[Key, _Look] = field(default_factory=dict)
    _sums: KeptSums = field(default_factory=KeptSums)
    _begun: dict[Key, Mapping[str, Sums]] = field(default_factory=dict)
    """Sums of the run that is under way."""

    def under_way(self, key: Key) -> bool:
        """Whether pods are being asked: a pass could not go on."""
        look = self._looks.get(key)
        return look is not None and not look.over

    def told(self, key: Key, obs: Observation, now: float) -> Observation:
        """`obs` with what the pods counted that this pass must know of. Raises AskedError when it is not there yet.

        To be called only when no look is under way.
        """
        wanted = [(addressee(obs, question.revision), question) for question in questions(obs, now)]
        told = self._answers(key, obs, wanted)
        sums = {
            one.revision: self._sums.begin(f"{obs.index.uid}/{one.revision}", now, urgent=one.purpose is Purpose.SOAK)
            for _, one in wanted
            if one.purpose not in (Purpose.BASELINE, Purpose.SHADOW, Purpose.FIGURES)
        }
        self._begun[key] = sums
        evidence = {
            question.revision: tuple(one for one in said if isinstance(one, PodEvidence))
            for question, said in told.items()
            if question.purpose not in (Purpose.SHADOW, Purpose.FIGURES)
        }
        pairs = {
            question.revision: tuple(one for one in said if isinstance(one, PodPairs))
            for question, said in told.items()
            if question.purpose is Purpose.SHADOW
        }
        figures = {
            (asked.rule, asked.revision): one
            for question, said in told.items()
            for asked, one in zip(question.figures, said, strict=False)
            if isinstance(one, FigureAnswer)
        }
        return replace(obs, evidence=evidence, sums=sums, pairs=pairs, figures=figures)

    def _answers(self, key: Key, obs: Observation, wanted: Sequence[tuple[Addressee, Question]]) -> Answers:
        if not wanted:
            return {}
        look = self._looks.get(key)
        answers = look.answers(wanted) if look is not None else None
        if answers is None:
            answers = self._ask(key, obs, wanted).answers(wanted)
        assert answers is not None
        return answers

    def spent(self, key: Key) -> None:
        """A run is over: what it was told is no answer to the next one."""
        self._looks.pop(key, None)
        for sums in self._begun.pop(key, {}).values():
            sums.end()

    def stuck(self, longest: float) -> str:
        """Why there is no progress: a look that has been under way for `longest` seconds. Empty: there is."""
        under_way = [(look.began, key) for key, look in list(self._looks.items()) if not look.over]
        began, key = min(under_way, default=(float("inf"), ("", "")))
        age = time.monotonic() - began
        return f"the look at the pods of {'/'.join(key)} has been under way for {age:.0f} s" if age >= longest else ""

    def _ask(self, key: Key, obs: Observation, wanted: Sequence[tuple[Addressee, Question]]) -> _Look:
        asked = tuple(_Asked(to, question, self._put(obs, to, question)) for to, question in wanted)
        look = self._looks[key] = _Look(time.monotonic(), asked)
        if look.over:
            return look
        left, lock = len(asked), threading.Lock()

        def answered(_: object) -> None:
            nonlocal left
            with lock:
                left -= 1
                last = left == 0
            if last:
                self.on_answer(*key)

        for one in asked:
            one.answers.add_done_callback(answered)
        raise AskedError(f"{len(asked)} revisions were asked")

    def _put(
        self, obs: Observation, to: Addressee, question: Question
    ) -> Future[tuple[PodEvidence, ...]] | Future[tuple[PodPairs, ...]] | Future[tuple[FigureAnswer, ...]]:
        if question.purpose is Purpose.FIGURES:
            return self.figures.ask(obs.index.namespace, question.figures)
        pods = _serving(obs, question.revision)
        if question.purpose is Purpose.SHADOW:
            return self.searchers.pairs(to, pods, question.shadow)
        return self.searchers.evidence(to, pods, question)


def _serving(obs: Observation, revision: str) -> list[tuple[str, str]]:
    """Pods that are not ready serve nothing and owe no evidence; Unavailable looks after them."""
    loaded = obs.loaded.get(revision)
    return [(pod.name, pod.address) for pod in (loaded.answering if loaded else ()) if pod.ready and pod.address]
