"""What searches hold in memory while they run, all of them together, and how long one answer may become.

The bytes that a request sends and those that a client leaves unread are the port's budgets (http/limits.py); these are
those between: what FAISS holds for candidates, the rows of a filter that is new, and an answer as Python's objects and
as text.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from ..http.limits import ANSWER_BYTES, CANDIDATE_BYTES, READING_TIMES, SLICE_CANDIDATES, WORK_BYTES
from ..http.messages import Problem, overload
from .plan import SearchPlan

_TIMES = 4
"""An answer is in memory as values, as text, as text of the whole, and on its way to the socket."""


class WorkBudget:
    """Bytes for all searches of the process. Thread-safe."""

    def __init__(self, limit: int = WORK_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, size: int) -> None:
        """Raises Problem 503 when others hold too much; what is alone is let in."""
        with self._lock:
            if self.taken and self.taken + size > self._limit:
                raise overload(f"other searches hold {self.taken} of {self._limit} bytes")
            self.taken += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.taken -= size


class Work:
    """What one search holds, from its beginning until its answer is made. Use with `with`."""

    def __init__(self, budget: WorkBudget, limit: int = ANSWER_BYTES) -> None:
        self._budget = budget
        self._limit = self._left = limit
        self._taken = 0

    def read(self, size: int) -> None:
        """Before a body of so many bytes is read. Raises Problem 503."""
        self._take(READING_TIMES * size)

    def search(self, plan: SearchPlan, vectors: int) -> None:
        """Before a search of so many vectors. Raises Problem 503."""
        self._take(min(vectors * plan.candidates, max(SLICE_CANDIDATES, plan.candidates)) * CANDIDATE_BYTES)

    def filter(self, rows: int) -> None:
        """Before a filter is evaluated over so many rows: a bit each, twice with deleted rows. Raises Problem 503."""
        self._take(2 * ((rows + 7) // 8))

    def answer(self, size: int) -> None:
        """Before so many bytes more of its answer are made. Raises Problem 400 when it becomes too long, 503."""
        self._left -= size
        if self._left < 0:
            raise Problem(
                400,
                "TooMuchWork",
                f"the answer would be longer than {self._limit} bytes",
                field="vectors",
                remedy="send fewer vectors in one request, ask for a smaller k, or leave include out",
                members={"expected": self._limit},
            )
        self._take(_TIMES * size)

    def _take(self, size: int) -> None:
        self._budget.take(size)
        self._taken += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._budget.give(self._taken)
