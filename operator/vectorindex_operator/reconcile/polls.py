"""Questions to searchers about the source, off the workers: who asks does not wait, and what was heard is kept.

In memory only: what is lost is asked again, and a pod that listed lately answers from its own. An answer marks the key
where something follows from it; "as it was", of the source and of the artifact that a rollback needs, is looked at when
the next poll is due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.source_poll import Heard, Said, SourceAnswer, SourceQuestion, hear
from vectorindex_operator.reconcile.ports import Searchers
from vectorindex_searcher.contract import Found

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(slots=True)
class SourcePolls:
    """What was heard of each VectorIndex's source. At most one question of an index is under way."""

    searchers: Searchers
    on_news: Callable[[str, str], None] = lambda namespace, name: None
    on_poll: Callable[[Said], None] = lambda said: None
    clock: Callable[[], float] = time.time
    on_artifact: Callable[[Found], None] = lambda found: None
    _heard: dict[Key, Heard] = field(default_factory=dict)
    _asked: dict[Key, SourceQuestion] = field(default_factory=dict)

    def heard(self, key: Key) -> Heard | None:
        return self._heard.get(key)

    def ask(self, key: Key, to: Addressee, question: SourceQuestion) -> None:
        if key in self._asked:
            return
        self._asked[key] = question
        asked_at = self.clock()

        def answered(done: Future[SourceAnswer]) -> None:
            if self._asked.get(key) is not question:
                return  # the index is gone
            error = done.exception()
            answer = SourceAnswer(problem=repr(error)[:200]) if error is not None else done.result()
            heard = self._heard[key] = hear(question, asked_at, answer, self.clock())
            del self._asked[key]
            self.on_poll(heard.said)
            if heard.found is not None:
                self.on_artifact(heard.found)
            if heard.news or heard.words:
                said = " ".join(filter(None, (heard.said, heard.found, heard.words)))
                log.info("source of %s by %s: %s", "/".join(key), question.pod, said)
            if heard.news:
                self.on_news(*key)

        self.searchers.source(to, question).add_done_callback(answered)

    def forget(self, key: Key) -> None:
        """The index is gone, or another operator's."""
        self._heard.pop(key, None)
        self._asked.pop(key, None)
