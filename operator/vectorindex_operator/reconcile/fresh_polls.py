"""Questions to searchers about fresh rows, like those about the source (polls.py): off the workers, in memory only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshHeard, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.reconcile.ports import Searchers

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(slots=True)
class FreshPolls:
    """What was heard of each VectorIndex's fresh rows. At most one question of an index is under way."""

    searchers: Searchers
    on_news: Callable[[str, str], None] = lambda namespace, name: None
    on_look: Callable[[FreshAnswer], None] = lambda answer: None
    clock: Callable[[], float] = time.time
    _heard: dict[Key, FreshHeard] = field(default_factory=dict)
    _asked: dict[Key, FreshQuestion] = field(default_factory=dict)

    def heard(self, key: Key) -> FreshHeard | None:
        return self._heard.get(key)

    def ask(self, key: Key, to: Addressee, question: FreshQuestion) -> None:
        if key in self._asked:
            return  # its answer is on its way
        self._asked[key] = question
        asked_at = self.clock()

        def answered(done: Future[FreshAnswer]) -> None:
            if self._asked.get(key) is not question:
                return  # the index is gone
            error = done.exception()
            answer = FreshAnswer(problem=repr(error)[:200]) if error is not None else done.result()
            heard = self._heard[key] = FreshHeard(question, asked_at, answer)
            del self._asked[key]
            self.on_look(answer)
            if answer.problem:
                log.info("fresh rows of %s by %s: %s", "/".join(key), question.pod, answer.problem)
            if heard.news:
                self.on_news(*key)

        self.searchers.fresh(to, question).add_done_callback(answered)

    def forget(self, key: Key) -> None:
        """The index is gone, or another operator's."""
        self._heard.pop(key, None)
        self._asked.pop(key, None)
