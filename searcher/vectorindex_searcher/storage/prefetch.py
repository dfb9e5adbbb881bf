"""One item ahead: a stream whose next item is made by another thread while the caller works on this one.

Two items are in memory, never more, and one alone while it is a large one, so memory stays bounded whatever the stream.
Knows nothing of what the items are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], size: Callable[[Item], int] = lambda item: 0, most: int = 0) -> Iterator[Item]:
    """The same items in the same order; what making one raises is raised here. Closing this ends the other thread.

    size: bytes of an item. While the caller has one of more than `most`, no other is made.
    """
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
            (item,) = made
            del made  # the caller's reference is the only one: an item goes when the caller drops it
            large = size(item) > most
            if not large:
                wanted.release()
            yield item
            del item
            if large:
                wanted.release()
    finally:
        stopped.set()
        wanted.release()
        thread.join()
