"""One HTTP answer, as both clients read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ServerError, VectorIndexError, problem

MAX_ANSWER_BYTES = 256 << 20
"""Ten times what a searcher ever sends; a server that sends more is none."""
REVISION = "x-vectorindex-revision"
IGNORED_PARAMS = "x-vectorindex-ignored-params"
RERANKED = "x-vectorindex-reranked"
FRESH = "x-vectorindex-fresh"
SHARDS_MISSING = "x-vectorindex-shards-missing"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `headers`: of any mapping that takes names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type alone."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds of a Retry-After header; None without one, or for a date, which searchers never send."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None

    def document(self, member: str) -> dict[str, Any]:
        """The JSON object in a good answer, which has `member`. Raises ServerError for anything else."""
        try:
            found = json.loads(self.body)
        except ValueError:
            raise ServerError("the answer is not JSON", status=self.status, remedy="check the URL") from None
        if not isinstance(found, dict) or member not in found:
            raise not_a_searcher(self.status)
        return found

    def problem(self) -> VectorIndexError:
        """What a refusal says."""
        found: Any = None
        if self.content_type == "application/problem+json":
            try:
                found = json.loads(self.body)
            except ValueError:
                found = None
        return problem(self.status, found if isinstance(found, dict) else None)


def not_a_searcher(status: int | None = None, detail: str = "the answer is not one of a searcher") -> ServerError:
    """Something else listens at that URL."""
    return ServerError(detail, status=status, remedy="check the URL")
