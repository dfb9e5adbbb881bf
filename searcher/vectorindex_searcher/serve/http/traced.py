"""A connection whose requests know the trace that they belong to: made only where somebody is told of traces."""

from __future__ import annotations

from ..tracing.context import Context, sampled
from .connection import Connection
from .head import Head
from .messages import Request


class TracedConnection(Connection):
    """What others do not read of a head, which may be known from before in all that they do read."""

    _trace: Context | None = None
    """Of the request whose head came last: bodies come one after the other."""

    def _judge(self, raw: bytes) -> Head:
        self._trace = sampled(raw)
        return super()._judge(raw)

    def _take(self, request: Request) -> None:
        request.trace, self._trace = self._trace, None
        super()._take(request)
