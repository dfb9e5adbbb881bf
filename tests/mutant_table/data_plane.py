"""What keeps searchers from serving what is not proven, and the client from asking too much."""

from __future__ import annotations

from .mutant import Mutant

_SEARCHER = "searcher/vectorindex_searcher"
_CLIENT = "client/vectorindex_client"
_LOAD = f"{_SEARCHER}/serve/load.py"
_INTERNAL = f"{_SEARCHER}/contract/internal.py"
_UNVERIFIED = "unit/test_searcher_serve_process.py::test_what_cannot_be_verified_never_serves"

DATA_PLANE = (
    Mutant(
        "the checksum of manifest and report is not compared",
        f"{_SEARCHER}/artifact/document.py",
        "    if expected_sha256 and sha256 != expected_sha256:\n",
        "    if expected_sha256 and not sha256:\n",
        (_UNVERIFIED,),
        "Whoever may write to the bucket would choose what is served.",
    ),
    Mutant(
        "the checksum of a fetched file is not compared",
        f"{_SEARCHER}/storage/download.py",
        "    if (found := file.hasher.hexdigest()) != file.wanted.sha256:\n",
        "    if (found := file.hasher.hexdigest()) == '':\n",
        ("unit/test_searcher_download.py::test_a_wrong_file_never_gets_its_name_and_leaves_nothing",),
        "A broken or swapped index would be opened.",
    ),
    Mutant(
        "a file in the node's cache is not verified",
        f"{_SEARCHER}/storage/download.py",
        '        return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256\n',
        '        return hashlib.file_digest(file, "sha256").hexdigest() != ""\n',
        ("unit/test_searcher_download.py::test_what_is_there_is_verified_and_only_the_rest_fetched",),
        "What another pod left on the node would be opened unseen.",
    ),
    Mutant(
        "a report about another artifact is a proof",
        _LOAD,
        "    if report.manifest_sha256 != task.manifest_sha256:\n",
        "    if not report.manifest_sha256:\n",
        ("unit/test_searcher_serve_process.py::test_a_report_of_another_manifest_is_refused",),
        "A pod would serve one artifact on the proof of another.",
    ),
    Mutant(
        "a gate without checksums is a proof",
        _LOAD,
        "    if task.gate_hash and not (task.manifest_sha256 and task.report_sha256):\n",
        "    if task.gate_hash and not task.digest:\n",
        ("unit/test_searcher_serve_process.py::test_a_gate_without_checksums_is_no_proof",),
        "Whatever lies under the name would be served.",
    ),
    Mutant(
        "the canary's recall is not compared",
        _LOAD,
        "    if not table.num_rows or recall < least - 1e-9:\n",
        "    if not table.num_rows:\n",
        ("unit/test_searcher_serve_process.py::test_a_pod_below_the_gates_canary_recall_never_serves",),
        "A pod whose FAISS answers otherwise would serve.",
    ),
    Mutant(
        "no canary queries are a proof",
        _LOAD,
        "    if not table.num_rows or recall < least - 1e-9:\n",
        "    if recall < least - 1e-9:\n",
        ("unit/test_searcher_serve_process.py::test_a_canary_without_queries_proves_nothing",),
        "A pod would serve without having answered anything.",
    ),
    Mutant(
        "a pod is ready before its index is loaded",
        f"{_SEARCHER}/serve/traffic.py",
        "        return self._loaded and not self._ending\n",
        "        return not self._ending\n",
        ("unit/test_searcher_serve_app.py::test_probes_follow_the_pod",),
        "The traffic would be switched to pods that have nothing to answer with.",
    ),
    Mutant(
        "a draining lease never ends by itself",
        f"{_SEARCHER}/serve/traffic.py",
        "self._clock() + lease.ttl_seconds if draining else 0.0",
        "self._clock() + 1e9 * lease.ttl_seconds if draining else 0.0",
        ("unit/test_searcher_serve_app.py::test_draining_lease_closes_connections_after_their_answer_and_runs_out",),
        "Without an operator, pods that have the traffic again would close every connection.",
    ),
    Mutant(
        "internal requests need no signature",
        f"{_SEARCHER}/serve/http/internal.py",
        "        if key and sender is not contract.Sender.GENUINE:\n",
        "        if key and not sender:\n",
        ("unit/test_internal_requests.py::test_with_a_key_only_what_is_signed_passes_and_probes_and_metrics_are_open",),
        "Whoever reaches the admin port would tell leases and read evidence.",
    ),
    Mutant(
        "a signature holds for ever",
        _INTERNAL,
        "return Sender.GENUINE if abs(now - at) <= SIGNATURE_SECONDS else Sender.STALE",
        "return Sender.GENUINE",
        ("unit/test_internal_requests.py::test_what_was_signed_at_another_time_is_stale",),
        "Who heard a lease once could repeat it for ever.",
    ),
    Mutant(
        "a request for another pod is taken",
        _INTERNAL,
        "    if target and target != str(me):\n",
        "    if not target and me is None:\n",
        ("unit/test_internal_requests.py::test_another_index_revision_or_shard_is_misdirected_also_with_its_own_key",),
        "A pod that got another's address would answer in its name.",
    ),
    Mutant(
        "the body is not signed",
        _INTERNAL,
        "    digest = hashlib.sha256(request.body).hexdigest()\n",
        '    digest = hashlib.sha256(b"").hexdigest()\n',
        ("unit/test_internal_requests.py::test_every_part_of_the_request_is_signed",),
        "A lease could be turned into its opposite on its way.",
    ),
    Mutant(
        "live queries are told without a key",
        f"{_SEARCHER}/serve/http/internal.py",
        "        if users and not self._key:\n",
        "        if users and not self._key and self._live_key:\n",
        ("unit/test_searcher_live_queries.py", "unit/test_internal_requests.py"),
        "What users ask would be read by whoever reaches the port.",
    ),
    Mutant(
        "deleted ids are answered",
        f"{_SEARCHER}/serve/tombstones.py",
        "            self._engine.hide(RowSet.of_rows(rows, self._engine.count) if len(rows) else None)\n",
        "            RowSet.of_rows(rows, self._engine.count)\n",
        ("unit/test_searcher_tombstones.py::test_deleted_ids_are_hidden_after_a_refresh",),
        "What somebody deleted would be found.",
    ),
    Mutant(
        "feedback is sent again",
        f"{_CLIENT}/attempts.py",
        "error.early and self.request.reads_only and not self._broken_once:",
        "error.early and not self._broken_once:",
        ("unit/test_client.py::test_feedback_that_may_have_been_counted_is_not_sent_again",),
        "A click would count twice, and guardrails are judged by clicks.",
    ),
    Mutant(
        "a query that ends a searcher is handed round",
        f"{_CLIENT}/attempts.py",
        "error.early and self.request.reads_only and not self._broken_once:",
        "error.early and self.request.reads_only:",
        ("unit/test_client.py::test_a_connection_closed_before_any_answer_is_tried_once_more_and_not_twice",),
        "A query of death would reach every pod.",
    ),
    Mutant(
        "a refusal without a time is asked again at once",
        f"{_CLIENT}/attempts.py",
        "isinstance(error, Overloaded) and seconds is not None)",
        "error is not None)",
        ("unit/test_client.py::test_nothing_else_is_sent_twice",),
        "Every client would make an overload worse.",
    ),
    Mutant(
        "retries go on after the deadline",
        f"{_CLIENT}/attempts.py",
        "        if not again or self._left <= 0 or time.monotonic() + seconds >= self.deadline.ends:\n",
        "        if not again or self._left <= 0:\n",
        ("unit/test_client_deadlines.py::test_retries_end_with_the_deadline_too",),
        "A call would last longer than whoever made it waits.",
    ),
)
