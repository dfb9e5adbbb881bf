"""Clicks that come to one of several search processes: the front process counts them, so that a second click on one
answer is known whatever connection it comes by."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from ..evidence.feedback import QueryIds, click_answer, read_click
from ..evidence.recorder import Recorder
from ..http.messages import Request, Response


class SentFeedback(QueryIds):
    """`send`: takes the number of a click, its query id and its rank."""

    def __init__(self, revision: str, recorder: Recorder, send: Callable[[int, str, int], None]) -> None:
        super().__init__(revision, recorder)
        self._send = send
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Response]] = {}

    def handle(self, request: Request) -> asyncio.Future[Response]:
        """As QueryIds; answered when the front process has said what became of it."""
        query, rank = read_click(request.body)
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(number, query.text(), rank)
        return answer

    def answered(self, number: int, result: str) -> None:
        """What became of click `number`."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(click_answer(result))
