"""What keeps parts of one plan from passing for those of another, and a merged answer from being measured kindly."""

from __future__ import annotations

from .mutant import Mutant

_SEARCHER = "searcher/vectorindex_searcher"
_TESTS = "unit/test_searcher_shards.py::"
_ROUTE, _ROUTER = f"{_SEARCHER}/serve/route", "unit/test_searcher_router.py::"

SHARDS = (
    Mutant(
        "a part of another plan completes this one",
        f"{_SEARCHER}/artifact/sharded.py",
        "    return found if found is not None and found[0].plan_sha256 == plan_sha256 else None\n",
        "    return found\n",
        (f"{_TESTS}test_what_another_plan_left_never_completes_this_one",),
        "It may lack files, or be of other rows.",
    ),
    Mutant(
        "a build does not look whose part was published",
        f"{_SEARCHER}/build/by_plan.py",
        "        if published.plan_sha256 != self.sha256:\n",
        "        if published.plan_sha256 == '':\n",
        (f"{_TESTS}test_what_another_plan_left_never_completes_this_one",),
        "A build that was given up an hour ago may end in between.",
    ),
    Mutant(
        "files of a part go before what says that it is whole",
        f"{_SEARCHER}/artifact/collect.py",
        "        ours.sort(key=lambda one: one[1] is not Kind.PART)",
        "        ours.sort(key=lambda one: one[1] is Kind.PART)",
        (f"{_TESTS}test_collect_removes_all_of_it_and_what_makes_a_part_whole_first",),
        "A Job that is cut off would leave manifests without files, which pass for parts.",
    ),
    Mutant(
        "a part without its files is published",
        f"{_SEARCHER}/artifact/whole.py",
        "        if there is None or there.size != file.size:\n",
        "        if there is not None and there.size < 0:\n",
        (f"{_TESTS}test_nothing_is_published_while_a_part_is_missing_or_lacks_a_file",),
        "Searchers would find out, after the rollout began.",
    ),
    Mutant(
        "a searcher believes whatever manifest its part has",
        f"{_SEARCHER}/serve/load.py",
        "        manifest, sha256 = load_manifest(store, layout, task.digest, own)\n",
        '        manifest, sha256 = load_manifest(store, layout, task.digest, "" if task.shard is not None else own)\n',
        (f"{_TESTS}test_a_searcher_of_a_part_wants_the_whole_that_it_was_told",),
        "What was proven is named by the manifest of the whole alone.",
    ),
    Mutant(
        "a held-out row is asked of the shard that has it",
        f"{_SEARCHER}/proof/merged.py",
        "    theirs = np.flatnonzero(asked.owners != number)\n",
        "    theirs = np.flatnonzero(asked.owners >= -1)\n",
        (f"{_TESTS}test_a_held_out_row_is_asked_of_its_shard_without_it",),
        "Every query would find itself.",
    ),
    Mutant(
        "an answer without a shard is no error",
        f"{_SEARCHER}/serve/evidence/recorder.py",
        "        if status >= 400 or outcome.incomplete:\n",
        "        if status >= 400:\n",
        (f"{_ROUTER}test_an_answer_without_a_shard_says_so_where_it_is_allowed_and_counts_as_an_error",),
        "No guardrail would trip while every answer lacks rows.",
    ),
    Mutant(
        "a refusal for want of a shard is nobody's fault",
        f"{_SEARCHER}/serve/evidence/recorder.py",
        "        if not outcome.incomplete and (400 <= status < 500 or status in _REFUSALS):\n",
        "        if 400 <= status < 500 or status in _REFUSALS:\n",
        (f"{_ROUTER}test_a_lost_shard_is_503_that_names_it_and_counts_as_an_error",),
        "503 is else overload, which says nothing about a revision.",
    ),
    Mutant(
        "a router answers without a shard though it is told to refuse",
        f"{_ROUTE}/router.py",
        "        if numbers and (not parts or self._router.partial is contract.Partial.REFUSE):\n",
        "        if numbers and not parts:\n",
        (f"{_ROUTER}test_a_lost_shard_is_503_that_names_it_and_counts_as_an_error",),
        "Rows would be missing that nobody knows of.",
    ),
    Mutant(
        "a lost pod's requests are not asked of another",
        f"{_ROUTE}/ask.py",
        "        if other is not None and self._tries < MOST_TRIES:\n",
        "        if other is not None and self._tries < 1:\n",
        (f"{_ROUTER}test_a_lost_pod_costs_no_query_while_another_of_its_shard_is_there",),
        "Every pod that ends would cost queries.",
    ),
    Mutant(
        "a pod is believed to be of the shard whose address it has",
        f"{_ROUTE}/facts.py",
        "        if part is None or (part.number, part.of) != (number, shards):\n",
        "        if part is None:\n",
        (f"{_ROUTER}test_pods_of_another_revision_shard_or_plan_are_never_asked",),
        "An address that was used again: one shard would be asked twice and another not at all.",
    ),
    Mutant(
        "parts of two plans are asked as one index",
        f"{_ROUTE}/facts.py",
        '    return orjson.dumps([told, index.shard.plan if index.shard is not None else ""], '
        "option=orjson.OPT_SORT_KEYS)\n",
        "    return orjson.dumps([told], option=orjson.OPT_SORT_KEYS)\n",
        (f"{_ROUTER}test_pods_of_another_revision_shard_or_plan_are_never_asked",),
        "Rows would be answered twice, or by nobody.",
    ),
    Mutant(
        "a score that is no number is merged",
        f"{_ROUTE}/parts.py",
        "    if not math.isfinite(float(np.vdot(scores, scores))) and not np.isfinite(scores).all():\n",
        "    if len(scores) > 1 << 30:\n",
        (f"{_ROUTER}test_a_shard_that_answers_nonsense_is_a_missing_one",),
        "It would stand anywhere among the others.",
    ),
    Mutant(
        "second requests cost nothing",
        f"{_ROUTE}/pods.py",
        "        self._hedges -= 1.0\n",
        "        self._hedges -= 0.0\n",
        (f"{_ROUTER}test_second_requests_are_paid_for_by_first_ones",),
        "When all pods are slow each would get twice the requests.",
    ),
    Mutant(
        "any number of requests wait for a pod",
        f"{_ROUTE}/pods.py",
        "        there = [pod for pod in others if pod.outstanding < OUTSTANDING]\n",
        "        there = others\n",
        (f"{_ROUTER}test_requests_to_a_shard_are_bounded",),
        "A shard that hangs would take the router's memory and descriptors.",
    ),
    Mutant(
        "a router is ready before a shard has answered a search",
        f"{_ROUTE}/server.py",
        "            return isinstance(answer, Response) and not outcome.incomplete\n",
        "            return True\n",
        (f"{_ROUTER}test_a_router_is_ready_once_every_shard_has_answered",),
        "The traffic would go to a revision that cannot answer.",
    ),
    Mutant(
        "each shard gets a copy of a long body",
        f"{_ROUTE}/link.py",
        "        if len(body) <= COPIED_BYTES:\n",
        "        if len(body) < 1 << 40:\n",
        (f"{_ROUTER}test_a_long_body_is_one_object_whatever_the_number_of_shards",),
        "64 shards that take it slowly would be 64 copies.",
    ),
    Mutant(
        "answers on their way may take any room",
        f"{_ROUTE}/link.py",
        "            if not self._room.take(head.length):\n",
        "            if self._room.take(head.length) is None:\n",
        (f"{_ROUTER}test_answers_on_their_way_have_a_bounded_room",),
        "Many long answers at once would be the router's end.",
    ),
)
