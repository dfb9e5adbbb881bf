"""What `make test-flakes` rests on: another order for another seed, and no failure that goes unnamed."""

from __future__ import annotations

import itertools
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from ports import held
from run_flakes import failures
from shuffled import in_other_order

ITEMS: list[Any] = [SimpleNamespace(nodeid=f"tests/test_{module}.py::test_{n}") for module in "abcd" for n in range(9)]


def test_a_seed_gives_one_order_and_another_seed_another() -> None:
    first = in_other_order(ITEMS, 1)

    assert in_other_order(list(reversed(ITEMS)), 1) == first, "also when they were found in another order"
    assert in_other_order(ITEMS, 2) != first
    assert sorted(one.nodeid for one in first) == sorted(one.nodeid for one in ITEMS)


def test_the_tests_of_a_module_stay_together() -> None:
    modules = [one.nodeid.partition("::")[0] for one in in_other_order(ITEMS, 1)]

    changes = sum(one != other for one, other in itertools.pairwise(modules))
    assert changes == 3


def test_failures_and_errors_of_a_report_are_named() -> None:
    report = """<testsuites><testsuite>
    <testcase classname="tests.unit.test_a" name="test_good" time="0.1"/>
    <testcase classname="tests.unit.test_a" name="test_skipped"><skipped message="no root"/></testcase>
    <testcase classname="tests.unit.test_a" name="test_bad[x]"><failure message="assert 1 == 2">...</failure></testcase>
    <testcase classname="tests.unit.test_b" name="test_set_up"><error message="OSError"/></testcase>
    </testsuite></testsuites>"""

    assert failures(report) == {
        "tests.unit.test_a::test_bad[x]": "assert 1 == 2",
        "tests.unit.test_b::test_set_up": "OSError",
    }


def test_a_held_port_is_given_to_nobody_and_may_be_served_on() -> None:
    with held() as (port,):
        with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
        with ExitStack() as stack:
            others = [stack.enter_context(socket.socket()) for _ in range(200)]
            for one in others:
                one.bind(("127.0.0.1", 0))
            assert port not in {one.getsockname()[1] for one in others}
