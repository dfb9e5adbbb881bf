"""The measures that tests of time and memory stand on see what they are there to see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cost import AT_LEAST, AT_MOST, forget_peak, in_a_process_of_its_own, least, memory

MIB = 1 << 20
GROWN = """
    import sys
    from cost import memory
    before = memory("VmHWM")
    held = b"x" * int(sys.argv[1])
    print(memory("VmHWM") - before)
"""


def test_the_child_of_a_large_process_is_seen_to_grow() -> None:
    """By ru_maxrss it had its parent's peak, and no growth was seen below that: such a test could not fail."""
    large = np.ones(256 * MIB, np.int8)
    assert memory("VmRSS") > large.nbytes
    assert 63 * MIB < int(in_a_process_of_its_own(GROWN, 64 * MIB)) < 80 * MIB


def test_a_peak_that_was_forgotten_begins_anew() -> None:
    large = np.ones(256 * MIB, np.int8)
    del large
    forget_peak()
    before = memory("VmHWM")
    assert abs(before - memory("VmRSS")) < 16 * MIB
    again = np.ones(64 * MIB, np.int8)
    assert memory("VmHWM") - before > 60 * MIB, again.nbytes


def test_a_disturbed_measurement_goes_on_and_one_that_never_holds_ends() -> None:
    rounds = 0

    def disturbed() -> Iterator[float]:
        yield from [9.0] * (2 * AT_LEAST)
        while True:
            yield 1.0

    def work() -> float:
        nonlocal rounds
        rounds += 1
        return next(values)

    values = disturbed()
    assert least(work, lambda: 2.0, until=lambda one, other: one < other) == (1.0, 2.0)
    assert rounds == 2 * AT_LEAST + 1
    rounds, values = 0, disturbed()
    assert least(work, lambda: 0.5, until=lambda one, other: one < other) == (1.0, 0.5)
    assert rounds == AT_MOST
