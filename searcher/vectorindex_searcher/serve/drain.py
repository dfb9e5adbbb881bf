"""The end of a user port: what still comes is taken, what is owed is answered."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from .http.listener import Listener
from .traffic import Traffic

_POLL_SECONDS = 0.02
_log = logging.getLogger(__name__)


def told_to_end(traffic: Traffic, grace: float) -> asyncio.Future[float]:
    """Done with the seconds of grace once SIGTERM or SIGINT came, and `traffic` ends then. For the main thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[float] = loop.create_future()

    def end(number: signal.Signals, seconds: float) -> None:
        if not ended.done():
            _log.info("ending", extra={"signal": number.name, "graceSeconds": seconds})
            traffic.end()
            ended.set_result(seconds)

    loop.add_signal_handler(signal.SIGTERM, end, signal.SIGTERM, grace)
    # A person at a terminal has no endpoints to wait for.
    loop.add_signal_handler(signal.SIGINT, end, signal.SIGINT, 0.0)
    return ended


async def drain(users: Listener, grace: float, seconds: float) -> None:
    """Readiness is off already and answers say close. Take what still comes, answer what is owed, end.

    During the grace every connection in use gets an answer that closes it; those still open afterwards were idle
    for all of it, so closing them crosses with no query but by the rarest chance. `seconds`: for all of it.
    """
    deadline = time.monotonic() + seconds
    await asyncio.sleep(min(grace, seconds))
    users.stop_accepting()
    users.close_idle()
    while not users.quiet and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    owed = users.in_flight
    users.close_idle()
    # The last answers are on their way: wait for their clients to take them.
    deadline = min(deadline, time.monotonic() + users.limits.linger_seconds + 1)
    while users.connections and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    await users.close()
    _log.info("drained", extra={"unanswered": owed})
