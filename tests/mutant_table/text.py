"""What keeps a wrong, altered or hostile encoder from making the vectors of queries."""

from __future__ import annotations

from .mutant import Mutant

_SEARCHER = "searcher/vectorindex_searcher"
_TEXT = f"{_SEARCHER}/text"
_GATE = "operator/vectorindex_operator/core/gate.py"
_FOLDER_TESTS = "unit/test_searcher_text.py"
_PROOF_TESTS = "unit/test_searcher_encoder_proof.py"
_QUEUE_TESTS = "unit/test_searcher_text_searches.py"
_VERDICT_TESTS = "unit/test_encoder.py"
_ENDPOINT_TESTS = "unit/test_searcher_endpoint.py"

TEXT = (
    Mutant(
        "the files of an encoder are not compared with its sha256",
        f"{_TEXT}/folder.py",
        "        if found != sha256:\n",
        "        if not found:\n",
        (f"{_FOLDER_TESTS}::test_a_file_that_was_exchanged_is_never_opened",),
        "Whoever can write the bucket would choose what queries mean.",
    ),
    Mutant(
        "the files of an encoder in the node's cache are not verified",
        f"{_TEXT}/folder.py",
        "    if digest({name: _hash(path / name) for name in names}) != sha256:\n",
        "    if not names:\n",
        (f"{_FOLDER_TESTS}::test_what_lies_in_the_cache_is_verified_and_fetched_again_when_it_is_wrong",),
        "What another pod left on the node would be opened unseen.",
    ),
    Mutant(
        "a model is opened without a look at where its tensors are",
        f"{_TEXT}/onnx.py",
        "        refuse_external_data(folder.model)\n",
        "",
        (f"{_FOLDER_TESTS}::test_a_model_that_names_other_files_is_refused",),
        "Any file that the pod can read could be loaded as a tensor.",
    ),
    Mutant(
        "tensors in graphs of attributes are not looked at",
        f"{_TEXT}/onnx_file.py",
        '6: "GraphProto", 10: _TENSOR',
        "10: _TENSOR",
        (f"{_FOLDER_TESTS}::test_a_model_that_names_other_files_is_refused",),
        "A branch of an If could name a file of the pod.",
    ),
    Mutant(
        "a text may have as many tokens as its model takes",
        f"{_TEXT}/settings.py",
        "max_tokens=min(tokens, MOST_TOKENS),",
        "max_tokens=tokens,",
        (f"{_FOLDER_TESTS}::test_a_model_that_takes_more_than_memory_allows_is_cut_and_told",),
        "One text would take gigabytes and end the pod for every user.",
    ),
    Mutant(
        "texts of one call are bounded by their tokens alone",
        f"{_TEXT}/onnx.py",
        " or texts * tokens**2 > CALL_SQUARES):",
        "):",
        (f"{_FOLDER_TESTS}::test_no_call_of_several_takes_more_than_one_text_of_full_length",),
        "Several long texts at once would take more memory than the one that was tried at the start.",
    ),
    Mutant(
        "a text of full length is first encoded for a user",
        f"{_TEXT}/onnx.py",
        '["a text " * self.max_tokens]',
        '["a text"]',
        (f"{_FOLDER_TESTS}::test_a_text_of_full_length_is_encoded_at_opening",),
        "A pod without the memory would be ready, and killed by whoever asks at length.",
    ),
    Mutant(
        "an encoder that deviates passes the gate",
        _GATE,
        "    if proof.deviating_low > ENCODER_DEVIATING:\n",
        "    if proof.deviating_low > 1:\n",
        (f"{_VERDICT_TESTS}::test_the_gate_lets_only_the_model_of_the_index_pass",),
        "Queries in words would find the exact neighbours of wrong vectors.",
    ),
    Mutant(
        "an encoder that nobody compared passes the gate",
        _GATE,
        "    if proof is None or proof.rows < MIN_ENCODED_ROWS:\n",
        "    if proof is not None and proof.rows < 0:\n",
        (f"{_VERDICT_TESTS}::test_nobody_compared_is_no_pass",),
        "A wrong name of a column would let any model serve.",
    ),
    Mutant(
        "lengths of encoded vectors are not judged",
        _GATE,
        "abs(proof.norm_ratio - 1) > ENCODER_NORM:\n",
        "abs(proof.norm_ratio - 1) > 100:\n",
        (f"{_VERDICT_TESTS}::test_the_gate_lets_only_the_model_of_the_index_pass",),
        "A normalisation that was forgotten changes answers under InnerProduct, and no cosine.",
    ),
    Mutant(
        "a pod does not compare its encoder with the gate's",
        f"{_SEARCHER}/proof/encoder.py",
        "    if not lowest >= CANARY_COSINE:  # also what is no number\n",
        "    if not lowest >= -2:\n",
        (f"{_PROOF_TESTS}::test_a_pod_that_encodes_otherwise_than_the_gate_is_not_ready",),
        "A pod with another prefix or processor would answer by other vectors than were proven.",
    ),
    Mutant(
        "texts that wait are not bounded",
        f"{_SEARCHER}/serve/search/encoding.py",
        "        if self._waiting and self._waiting + len(texts) > self._queue_texts:\n",
        "        if self._waiting < 0:\n",
        (f"{_QUEUE_TESTS}::test_what_waits_is_bounded_in_texts_and_in_time",),
        "Overload would become a queue without end.",
    ),
    Mutant(
        "a text that a model fails at is searched for",
        f"{_SEARCHER}/serve/search/encoding.py",
        "            if not known[text].usable:\n",
        "            if known[text] is None:\n",
        (f"{_QUEUE_TESTS}::test_what_waits_is_encoded_together_and_each_gets_its_own",),
        "One text could make a revision answer nonsense, or look broken.",
    ),
    Mutant(
        "an endpoint that drips is waited for",
        f"{_TEXT}/endpoint.py",
        "        late.start()\n",
        "",
        (f"{_ENDPOINT_TESTS}::test_a_server_that_drips_gets_no_more_than_the_budget",),
        "Each query in words would hold a thread for as long as somebody else likes.",
    ),
    Mutant(
        "the answer of an endpoint may be of any size",
        f"{_TEXT}/endpoint.py",
        "            data = response.read(most + 1)\n            if len(data) > most:\n",
        "            data = response.read()\n            if not response:\n",
        (f"{_ENDPOINT_TESTS}::test_an_answer_of_any_size_is_not_read",),
        "It would fill the memory of a pod that serves vectors as well.",
    ),
    Mutant(
        "an endpoint that is down is asked by every query",
        f"{_TEXT}/breaker.py",
        "            if self._failures < FAILURES:\n",
        "            if self._failures < FAILURES or self._seconds:\n",
        (f"{_ENDPOINT_TESTS}::test_whoever_is_down_is_left_alone_and_then_tried_by_one",),
        "Each would wait for its whole budget, and those behind it too.",
    ),
    Mutant(
        "long texts of one user count as failures of an endpoint",
        f"{_TEXT}/endpoint.py",
        "            if short:\n",
        "            if texts:\n",
        (f"{_ENDPOINT_TESTS}::test_long_texts_of_one_keep_nobody_else_from_the_server",),
        "One token could keep queries in words from all others.",
    ),
    Mutant(
        "each call of a request has a budget of its own",
        f"{_TEXT}/endpoint.py",
        "            if side is Side.DOCUMENT:\n",
        "            if side:\n",
        (f"{_ENDPOINT_TESTS}::test_all_calls_of_a_request_have_one_budget",),
        "One request could hold a thread for a minute.",
    ),
    Mutant(
        "an endpoint that is busy counts as down",
        f"{_TEXT}/endpoint.py",
        "        if status == 429:\n",
        "        if status == 42:\n",
        (f"{_ENDPOINT_TESTS}::test_a_server_with_too_much_to_do_is_not_down",),
        "Who sends too much would shut it for all.",
    ),
    Mutant(
        "vectors of texts are kept for all policies together",
        f"{_SEARCHER}/serve/search/encoding.py",
        "        share = self._shares.get(holder)\n",
        "        share = next(iter(self._shares.values()), None)\n",
        (f"{_QUEUE_TESTS}::test_who_has_another_policy_learns_nothing_from_the_cache_and_pushes_nothing_out",),
        "The time of an answer would tell what others asked.",
    ),
    Mutant(
        "an endpoint that encodes otherwise than was proven goes on",
        f"{_TEXT}/endpoint.py",
        "        if self._wrong:\n",
        "        if self._wrong is None:\n",
        (f"{_ENDPOINT_TESTS}::test_an_endpoint_is_compared_again_and_answers_nothing_while_it_deviates",),
        "Somebody else's upgrade would change what every query means.",
    ),
    Mutant(
        "the token of today's endpoint goes to that of an earlier revision",
        "operator/vectorindex_operator/core/recipe.py",
        "        return live.encoder_secret if live.encoder_url == served.url else frozen.encoder_secret\n",
        "        return live.encoder_secret or frozen.encoder_secret\n",
        (f"{_VERDICT_TESTS}::test_a_token_goes_to_the_url_that_it_stands_beside",),
        "Whoever runs the server that is left would get the token of the new one.",
    ),
    Mutant(
        "processes share connections to an endpoint after a fork",
        f"{_TEXT}/endpoint.py",
        "        if self._process != os.getpid():\n",
        "        if self._process < 0:\n",
        (f"{_ENDPOINT_TESTS}::test_a_process_that_was_forked_has_connections_of_its_own",),
        "Each would read vectors of the other's queries.",
    ),
)
