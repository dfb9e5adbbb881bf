"""What all tenants have together: nobody's greed is another's wait."""

from __future__ import annotations

import asyncio

from vectorindex_operator.adapters.shares import Pool, Share


def grab(share: Share) -> None:
    while share.take(1):
        pass


def test_however_many_took_all_they_could_something_is_left_for_who_comes_next() -> None:
    alone = Pool(1000).share()
    grab(alone)
    assert 350 < alone.held < 400
    for greedy in (1, 4, 20, 40):
        pool = Pool(1000)
        for share in [pool.share() for _ in range(greedy)]:
            grab(share)
        assert pool.free >= 1000 // (greedy + 2)
        assert pool.share().take(1)


def test_those_who_take_in_turn_get_equal_parts() -> None:
    pool = Pool(1000)
    shares = [pool.share() for _ in range(20)]
    for _ in range(1000):
        for share in shares:
            share.take(1)
    assert {share.held for share in shares} <= {38, 39, 40}
    assert pool.free >= 200


def test_what_is_given_back_is_free_for_all() -> None:
    pool = Pool(100)
    first, second = pool.share(), pool.share()
    grab(first)
    assert second.take(20)
    assert not second.take(20)
    first.close()
    assert (first.held, pool.free) == (0, 80)
    assert second.take(15)


def test_who_waits_gets_a_turn_when_somebody_ends() -> None:
    async def run() -> list[str]:
        pool, order, ends = Pool(8), list[str](), asyncio.Event()

        async def hold(name: str, share: Share, until: asyncio.Event) -> None:
            async with share.one():
                order.append(name)
                await until.wait()

        greedy, now = pool.share(), asyncio.Event()
        now.set()
        tasks = [asyncio.create_task(hold(f"greedy {n}", greedy, ends)) for n in range(4)]
        await asyncio.sleep(0)
        while len(order) < 3:
            await asyncio.sleep(0)
        await asyncio.create_task(hold("other", pool.share(), now))
        ends.set()
        await asyncio.gather(*tasks)
        assert pool.free == 8
        return order

    assert asyncio.run(run()) == ["greedy 0", "greedy 1", "greedy 2", "other", "greedy 3"]


def test_a_turn_of_one_that_has_gone_is_the_next_ones() -> None:
    async def run() -> None:
        pool = Pool(1)
        holds = pool.share()
        assert holds.take(1)
        got = asyncio.Event()

        async def wait(share: Share) -> None:
            async with share.one():
                got.set()

        gone, stays = (asyncio.create_task(wait(pool.share())) for _ in range(2))
        while len(pool.waiting) < 2:
            await asyncio.sleep(0)
        holds.close()
        pool.wake()
        gone.cancel()
        await asyncio.wait([gone])
        await asyncio.wait_for(stays, 60)
        assert got.is_set()
        assert not pool.waiting

    asyncio.run(run())
