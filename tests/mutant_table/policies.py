"""What keeps the rows of one token from another's."""

from __future__ import annotations

from .mutant import Mutant

_SEARCH = "searcher/vectorindex_searcher/serve/search"
_POLICIES = f"{_SEARCH}/policies.py"
_PLAN = f"{_SEARCH}/plan.py"
_READER = f"{_SEARCH}/reader.py"
_APP = "searcher/vectorindex_searcher/serve/app.py"
_TESTS = "unit/test_searcher_policies.py"
_ROUTE = "searcher/vectorindex_searcher/serve/route"
_ROUTED = "unit/test_searcher_router_policies.py"
_FUZZ = f"{_TESTS}::test_no_request_finds_a_row_of_others"

POLICIES = (
    Mutant(
        "what a filter says twice is held once",
        _PLAN,
        "        return 512 + memory_of(self.filter) + _held_by(self.asked)\n",
        "        return 512 + 2 * memory_of(self.filter)\n",
        ("unit/test_searcher_serve_query.py::test_words_of_a_filter_count_though_they_say_one_thing_many_times",),
        "Any token could fill a searcher, and a router, with a hundred megabytes that nothing counts.",
    ),
    Mutant(
        "a plan is what its policy and the request say",
        _PLAN,
        "        if policy.filter is not None:\n            predicate, asked",
        "        if policy.filter is not None and predicate is None:\n            predicate, asked",
        (_FUZZ,),
        "Whoever sends a filter would see what matches it, of everybody.",
    ),
    Mutant(
        "policy and filter must both hold",
        _PLAN,
        '    return {"and": [one, other]}\n',
        '    return {"or": [one, other]}\n',
        (_FUZZ,),
        "A filter would add rows.",
    ),
    Mutant(
        "plans of JSON are kept by policy",
        _READER,
        "        return binary, orjson.dumps(fields), policy.key\n",
        '        return binary, orjson.dumps(fields), b""\n',
        (_FUZZ,),
        "The second tenant to ask the same would get the first one's rows.",
    ),
    Mutant(
        "plans of binary requests are kept by policy",
        _READER,
        '        key = (binary, b"?" + query, policy.key)\n',
        '        key = (binary, b"?" + query, b"")\n',
        (_FUZZ,),
        "The second tenant to ask the same would get the first one's rows.",
    ),
    Mutant(
        "searches are put together by policy",
        f"{_SEARCH}/service.py",
        "        key = (k, params, metadata, policy)\n",
        "        key = (k, params, metadata)\n",
        (_FUZZ,),
        "One call of FAISS would answer two tenants with the rows of one.",
    ),
    Mutant(
        "a token without a policy sees nothing",
        _POLICIES,
        "        if policy is None:\n            raise Problem(",
        "        if policy is None:\n            return ALL_ROWS\n            raise Problem(",
        (f"{_TESTS}::test_a_token_without_a_policy_gets_nothing_at_all",),
        "A new token, or a misspelt one, would see all rows.",
    ),
    Mutant(
        "a policy that cannot be enforced allows nothing",
        _APP,
        "        if policy.fault:\n            outcome.lost",
        "        if policy.fault and policy.filter is None:\n            outcome.lost",
        (f"{_TESTS}::test_a_policy_that_cannot_be_enforced_allows_nothing",),
        "With the column gone from an index, its tenants would see each other's rows.",
    ),
    Mutant(
        "a file that is wrong takes everything back",
        _POLICIES,
        "        self._hold(*self._stated())\n",
        "        stated, problem = self._stated()\n        if not problem:\n            self._hold(stated, problem)\n",
        (f"{_TESTS}::test_a_file_that_is_wrong_allows_nothing_until_it_is_right",),
        "An access that was to be taken away would stay as long as the file has a fault.",
    ),
    Mutant(
        "of two policies of a token none holds",
        _POLICIES,
        '            policies[name] = Policy(None, fault="the token has more than one policy")\n',
        "            pass\n",
        (f"{_TESTS}::test_a_policy_that_cannot_be_enforced_allows_nothing",),
        "Which of them holds would be a matter of their order.",
    ),
    Mutant(
        "a filter too large beside its policy is no loss",
        _PLAN,
        '            parse(_both(policy.filter, fields.get("filter")), before)\n',
        '            parse(fields.get("filter") or policy.filter, before)\n',
        (f"{_TESTS}::test_a_column_of_a_policy_that_is_gone_is_a_filter_lost",),
        "A tenant could take a good revision back, by filters that were refused before it as well.",
    ),
    Mutant(
        "policies are no tokens",
        "searcher/vectorindex_searcher/serve/http/auth.py",
        "if one.name != contract.POLICIES_FILE]",
        "if one.name]",
        (f"{_TESTS}::test_the_file_of_policies_is_no_token",),
        "A bracket would be a valid token.",
    ),
    Mutant(
        "the size of others is not told",
        _POLICIES,
        '    return {**own, "count": rows}\n',
        "    return own\n",
        (f"{_TESTS}::test_all_rows_that_match_are_found_and_counted",),
        "Each tenant would learn how much the others have.",
        each=(f"{_ROUTED}::test_all_rows_that_match_are_found_and_counted",),
    ),
    Mutant(
        "a router puts its policy under every query",
        f"{_ROUTE}/app.py",
        "content_type, outcome, binary=binary, policy=policy)\n",
        "content_type, outcome, binary=binary)\n",
        (f"{_ROUTED}::test_no_request_to_a_router_finds_a_row_of_others",),
        "Shards are asked with a token that sees all rows.",
    ),
    Mutant(
        "a token without a policy gets nothing of a router",
        f"{_ROUTE}/app.py",
        "        self._policy(request)\n        return dispatch",
        "        return dispatch",
        (f"{_ROUTED}::test_a_token_without_a_policy_gets_nothing_of_a_router",),
        "It could read what the index is made of, and click.",
    ),
    Mutant(
        "a router refuses what it cannot enforce",
        f"{_ROUTE}/app.py",
        "        if policy.fault:\n            outcome.lost",
        "        if policy.fault and policy.filter is None:\n            outcome.lost",
        (f"{_ROUTED}::test_a_router_refuses_a_policy_that_it_cannot_enforce",),
        "With the column gone from an index, its tenants would see each other's rows.",
    ),
    Mutant(
        "a column that one shard lacks is none",
        f"{_ROUTE}/facts.py",
        "if all(name in p.filter_columns for p in others)}\n",
        "if others}\n",
        (f"{_ROUTED}::test_a_column_that_one_shard_lacks_is_no_column_of_a_policy",),
        "That shard would be asked for what it cannot keep apart.",
    ),
    Mutant(
        "shards are shown a token that sees all rows",
        f"{_ROUTE}/token.py",
        "            files = [file for file in files if file.name in names]\n",
        "            files = [file for file in files if names is not None]\n",
        (f"{_ROUTED}::test_shards_are_shown_a_token_that_sees_all_rows",),
        "Shards would narrow every tenant's queries to the rows of one.",
    ),
    Mutant(
        "a shard that narrows what the router asks is not asked",
        f"{_ROUTE}/facts.py",
        "        if index.index_bytes is None:\n",
        "        if index.index_bytes == -1:\n",
        (f"{_ROUTED}::test_a_token_that_shards_narrow_is_no_token_for_them",),
        "Rows would be missing from every answer, and nothing would say so.",
    ),
    Mutant(
        "a router does not open shards that ask for tokens",
        f"{_ROUTE}/server.py",
        "        if told.shard_token_file is not None and settings.token_file is None:\n",
        "        if told.shard_token_file is not None and settings.token_file == Path():\n",
        ("unit/test_searcher_router_process.py::test_a_router_does_not_open_what_shards_show_to_holders_of_tokens",),
        "Everybody would see what shards show to the holders of tokens alone.",
    ),
    Mutant(
        "policies are told by a flag",
        "operator/vectorindex_operator/manifests/searchers.py",
        '            arguments += ["--policies", f"{TOKENS_DIR}/{POLICIES_FILE}"]\n',
        "            pass\n",
        ("unit/test_manifests_golden.py::"
         "test_policies_are_read_from_the_secret_of_the_tokens_by_a_flag_that_older_images_refuse",),
        "Every token would see every row.",
    ),
)  # fmt: skip
