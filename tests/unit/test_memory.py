"""What the process has used and does not use any more, it gives back."""

from __future__ import annotations

from cost import in_a_process_of_its_own

PROGRAM = """
    import threading
    from cost import memory as held
    from vectorindex_operator import memory

    memory.few_arenas()
    used = []

    def use():
        taken = [bytes(2000) for _ in range(20_000)]
        used.append(taken[::500])  # something of it is kept, everywhere

    before = held("VmRSS")
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    then = held("VmRSS")
    memory.give_back()
    print(before, then, held("VmRSS"))
"""


def test_what_is_free_is_given_back() -> None:
    before, then, now = map(int, in_a_process_of_its_own(PROGRAM).split())
    print(f"{(then - before) / 1e6:.0f} MB more, and {(now - before) / 1e6:.0f} MB when given back")
    assert now - before < (then - before) / 3
