"""How much memory the process keeps of what it has used: nearly none.

Listing a thousand indexes takes a hundred megabytes for seconds. glibc gives every thread an arena of its own, and
gives none of it back by itself; so there are few arenas, and what is free in them is given back when the work that
needed it is over.
"""

from __future__ import annotations

import ctypes
import gc

_M_ARENA_MAX = -8
_ARENAS = 2


def few_arenas() -> None:
    """To be called before there are threads."""
    _call("mallopt", _M_ARENA_MAX, _ARENAS)


def freeze() -> None:
    """What there is now (modules, above all) stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """What is free goes back to the system. Takes milliseconds."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    """Another C library than glibc has neither, and may do without."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
