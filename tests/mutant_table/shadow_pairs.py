"""What keeps a shadow from harming users, from being led by whoever listens, and from telling what is not so."""

from __future__ import annotations

from .mutant import Edit, Mutant

_SHADOW = "searcher/vectorindex_searcher/serve/shadow"
_INTERNAL = "searcher/vectorindex_searcher/serve/http/internal.py"
_PARTS = "unit/test_searcher_shadow.py"
_PODS = "unit/test_searcher_shadow_pods.py"

SHADOW_PAIRS = (
    Mutant(
        "a shadow's queue has no end",
        f"{_SHADOW}/mirror.py",
        "            if drawn is None or len(self.queue) >= self._room:\n",
        "            if drawn is None:\n",
        (f"{_PODS}::test_where_the_sender_does_not_come_to_it_the_queue_drops",),
        "A sender that hangs would take the pod's memory.",
    ),
    Mutant(
        "what waits for a receiver has no end",
        f"{_SHADOW}/sender.py",
        "        if lease is None or self._free <= 0:\n",
        "        if lease is None:\n",
        (f"{_PODS}::test_a_receiver_that_never_answers_delays_no_user_and_what_waits_is_bounded",),
        "A receiver that hangs would take the pod's memory.",
    ),
    Mutant(
        "a receiver may take as long as it likes",
        f"{_SHADOW}/sender.py",
        "            async with asyncio.timeout(contract.SHADOW_SECONDS):\n",
        "            async with asyncio.timeout(None):\n",
        (f"{_PODS}::test_a_receiver_that_takes_its_time_is_left_alone",),
        "A candidate that hangs would look like silence, and nothing else would be sent to it.",
    ),
    Mutant(
        "a receiver that breaks is no error",
        f"{_SHADOW}/sender.py",
        "            refused = frozenset(range(len(some)))\n",
        "            refused = frozenset[int]()\n",
        (f"{_PODS}::test_a_receiver_that_breaks_is_one_that_did_not_answer",),
        "A candidate that crashes on every query would pass.",
    ),
    Mutant(
        "a query that only the candidate refuses is no error",
        f"{_SHADOW}/sender.py",
        "    return frozenset(numbers)\n",
        "    return frozenset[int]()\n",
        (f"{_PODS}::test_a_query_that_the_other_refuses_is_unanswered",),
        "Its users would get that error after the switch.",
    ),
    Mutant(
        "a mirror's lease holds for ever",
        f"{_SHADOW}/mirror.py",
        "        if now >= lease.until:\n",
        "        if False:\n",
        (f"{_PODS}::test_without_a_lease_nothing_is_put_aside_and_it_runs_out_by_itself",),
        "Queries would be sent to addresses that are others' by now when the operator is gone.",
        also=(
            Edit(
                f"{_SHADOW}/sender.py",
                "        if lease is not None and time.monotonic() >= lease.until:\n",
                "        if lease is not None and time.monotonic() < 0:\n",
            ),
        ),
    ),
    Mutant(
        "a mirror's lease that was heard can be repeated",
        f"{_SHADOW}/port.py",
        "        if at < self._newest:\n",
        "        if False:\n",
        (f"{_PODS}::test_a_lease_that_was_heard_and_is_repeated_is_refused",),
        "What was ended would go on, to addresses that are others' by now.",
    ),
    Mutant(
        "a mirror's lease may name hosts",
        f"{_SHADOW}/sender.py",
        "        ipaddress.ip_address(address)\n",
        "        address.strip()\n",
        (f"{_PODS}::test_a_lease_that_says_nonsense_is_refused",),
        "Who answers for a name may be anybody.",
    ),
    Mutant(
        "queries of a shadow are signed with the revision's key",
        _INTERNAL,
        "        self._shadow_key = contract.shadow_key(key)\n",
        "        self._shadow_key = key\n",
        (f"{_PODS}::test_each_path_takes_its_own_key_and_no_other",),
        "The sender would have to be given a key that reads evidence and sends leases.",
    ),
    Mutant(
        "a shadow's query is searched before users'",
        f"{_SHADOW}/receiver.py",
        "            while self._pool.waiting:\n",
        "            while False:\n",
        (f"{_PODS}::test_while_users_wait_no_query_of_a_shadow_is_searched",),
        "A lease that outlives the switch would slow down the users of the new revision.",
    ),
    Mutant(
        "a query counts as often as it is asked",
        f"{_SHADOW}/receiver.py",
        "        if query.name in shadow.seen:\n",
        "        if False:\n",
        (f"{_PODS}::test_a_query_counts_once_in_a_shadow_and_again_in_the_next",),
        "A bot that repeats one query would be the verdict.",
        also=(Edit(f"{_SHADOW}/receiver.py", "        elif query.name in shadow.seen:", "        elif False:"),),
    ),
    Mutant(
        "pairs are counted over other deleted ids",
        f"{_SHADOW}/receiver.py",
        "        if batch.dimension != self._engine.dimension or asked.deleted != self._deleted():\n",
        "        if batch.dimension != self._engine.dimension:\n",
        (f"{_PODS}::test_deleted_ids_that_differ_make_no_pair",),
        "Answers that one of the two hides would look missed or gone.",
    ),
    Mutant(
        "told scores are compared where exact ones are wanted",
        f"{_SHADOW}/receiver.py",
        "        if asked.exact and asked.answers:\n",
        "        if asked.answers:\n",
        (f"{_PODS}::test_without_the_vectors_pairs_are_counted_and_no_answer_is_judged",),
        "The next index of other codes would look like other data.",
    ),
    Mutant(
        "a shadow's arrays are read as long as its head says",
        f"{_SHADOW}/wire.py",
        "    if len(rest) < sum(sizes) or (not head.text and len(rest) > sum(sizes)):\n",
        "    if False:\n",
        (f"{_PARTS}::test_what_no_searcher_sent_is_refused",),
        "What is behind the last array would be taken for part of it.",
    ),
    Mutant(
        "an answer with pairs is as long as it comes",
        f"{_SHADOW}/counts.py",
        "            if sum(map(len, written)) + len(written) + _HEAD_BYTES <= contract.PAIRS_BYTES:\n",
        "            if True:\n",
        (f"{_PARTS}::test_an_answer_is_never_too_long_and_adds_up_to_the_same",),
        "The operator takes none that is longer, so a pod with many segments would be silent.",
    ),
)
