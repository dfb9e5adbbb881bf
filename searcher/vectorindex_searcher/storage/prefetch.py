"""One item ahead: a stream whose next item is made by another thread while the caller works on this one.

Two items are in memory, never more, so memory stays bounded whatever the stream. Knows nothing of what the items are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in the same order; what making one raises is raised here. Closing this ends the other thread."""
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue()
    wanted = threading.Semaphore(1)
    stopped = threading.Event()

    def produce() -> None:
        try:
            while True:
                wanted.acquire()
                if stopped.is_set():
                    return
                ready.put((next(items),))
        except StopIteration:
            ready.put(None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            ready.put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (made := ready.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            wanted.release()
            (item,) = made
            del made  # the caller's reference is the only one: an item goes when the caller drops it
            yield item
            del item
    finally:
        stopped.set()
        wanted.release()
        thread.join()
