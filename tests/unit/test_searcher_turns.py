"""A turn for each holder: nobody's flood stands before others, fills the queue for them, or is without an end."""

from __future__ import annotations

import random
import threading

from vectorindex_searcher.serve.search.turns import Turns


def drained(turns: Turns[str]) -> list[str]:
    found = []
    while (one := turns.get_now()) is not None:
        found.append(one)
    return found


def test_each_holder_in_turn_gives_its_oldest() -> None:
    turns: Turns[str] = Turns(100)
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert turns.put(name, name[:1].encode()) == []
    assert (len(turns), turns.weight) == (6, 6)
    assert drained(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert (len(turns), turns.weight) == (0, 0)


def test_of_one_holder_it_is_a_queue_with_a_bound() -> None:
    turns: Turns[str] = Turns(4)
    assert turns.put("long", weight=9) == [], "one is always let in"
    assert turns.put("x") is None
    assert drained(turns) == ["long"]
    assert [turns.put(name, weight=2) for name in "abc"] == [[], [], None]
    assert drained(turns) == ["a", "b"]


def test_who_has_most_gives_way_by_its_newest() -> None:
    turns: Turns[str] = Turns(4)
    for number in range(4):
        assert turns.put(f"flood {number}", b"flood") == []
    assert turns.put("flood 4", b"flood") is None
    assert turns.put("mine", b"mine") == ["flood 3"]
    assert turns.put("mine too", b"mine") == ["flood 2"]
    assert drained(turns) == ["flood 0", "mine", "flood 1", "mine too"]


def test_who_has_a_share_is_refused_and_pushes_nobody_out() -> None:
    turns: Turns[str] = Turns(4)
    for name in ("a", "a2", "b", "b2"):
        assert turns.put(name, name[:1].encode()) == []
    assert turns.put("a3", b"a") is None
    assert turns.put("c", b"c") == ["a2"]
    assert turns.put("c2", b"c") is None, "a third of four is one"
    assert drained(turns) == ["a", "b", "c", "b2"]


def test_a_large_one_takes_the_place_of_several() -> None:
    turns: Turns[str] = Turns(10)
    for number in range(10):
        turns.put(f"flood {number}", b"flood")
    assert turns.put("mine", b"mine", weight=5) == [f"flood {number}" for number in (9, 8, 7, 6, 5)]
    assert turns.put("mine too", b"mine", weight=1) is None


def test_whatever_comes_it_stays_bounded_and_loses_nothing_without_a_word() -> None:
    rng = random.Random(1)
    for _ in range(200):
        turns: Turns[str] = Turns(most := rng.randint(1, 20))
        waits: set[str] = set()
        for number in range(rng.randint(1, 80)):
            if rng.random() < 0.3:
                one = turns.get_now()
                assert (one is None) == (not waits)
                waits.discard(one or "")
            holder, weight = bytes([rng.choice((1, 1, 1, 2, 3))]), rng.randint(1, 6)
            alone = not waits
            gone = turns.put(name := str(number), holder, weight)
            if gone is not None:
                assert waits.issuperset(gone)
                waits = (waits - {*gone}) | {name}
            assert len(turns) == len(waits)
            assert alone or turns.weight <= most or len(waits) == 1
        assert sorted(drained(turns)) == sorted(waits)


def test_threads_wait_for_what_comes_and_end_when_it_is_closed() -> None:
    turns: Turns[int] = Turns(1000)
    found: list[int] = []

    def work() -> None:
        while (one := turns.get()) is not None:
            found.append(one)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        turns.put(number, bytes([number % 7]))
    turns.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(found) == list(range(300))
