"""Views of Jobs and pods from raw objects: how a Job ended, what a pod waits for, whatever a container wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from observations import resolved

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.core.observation import JobState, Task
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import pods
from vectorindex_searcher.contract import Failure, ResolveResult, pack

Raw = dict[str, Any]
AT, LATER = "2027-01-15T08:00:00Z", "2027-01-15T08:05:00Z"
DENIED = Failure(reason="AccessDenied", message="403 for bucket vectors", field="spec.source.s3.secretRef")


def a_job(verb: str = "resolve", *conditions: Raw, **marks: str) -> Raw:
    annotations = {labels.KEY: "abc/", labels.FAILURES: "2", labels.DEVICE: "gpu"}
    meta = {
        "name": "docs-job",
        "uid": "uid-job",
        "creationTimestamp": AT,
        "labels": {labels.VERB: verb, labels.REVISION: "docs-1"},
        "annotations": {**annotations, **marks},
    }
    return {"metadata": meta, "status": {"conditions": list(conditions)}}


def is_so(kind: str, status: str = "True", **more: str) -> Raw:
    return {"type": kind, "status": status, "lastTransitionTime": LATER} | more


def a_pod(*containers: Raw, conditions: tuple[Raw, ...] = (), owner: str = "uid-job", at: str = AT, **meta: Any) -> Raw:
    return {
        "metadata": {
            "name": "pod-1",
            "creationTimestamp": at,
            "ownerReferences": [{"uid": owner, "controller": True}],
            **meta,
        },
        "status": {"podIP": "10.0.0.7", "containerStatuses": list(containers), "conditions": list(conditions)},
    }


def ended(message: str = "", code: int = 0, reason: str = "Completed") -> Raw:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


def waiting(reason: str, message: str = "") -> Raw:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


# ---------------------------------------------------------------- Jobs


def test_a_job_that_succeeded_says_its_result() -> None:
    view = pods.job_view(a_job("resolve", is_so("Complete")), [a_pod(ended(resolved().model_dump_json()))])
    assert view.result == resolved()
    assert (view.state, view.exit_code, view.failure) == (JobState.SUCCEEDED, 0, None)
    assert (view.task, view.revision, view.key, view.failures, view.device) == (
        Task.RESOLVE, "docs-1", "abc/", 2, "gpu",
    )  # fmt: skip
    assert (view.created_at, view.finished_at) == (to_unix(AT), to_unix(LATER))


def test_the_interim_conditions_are_not_the_end() -> None:
    for kind in ("FailureTarget", "SuccessCriteriaMet"):
        view = pods.job_view(a_job("build", is_so(kind)), [a_pod(ended(DENIED.model_dump_json(), 65))])
        assert (view.state, view.finished_at, view.result) == (JobState.RUNNING, None, None)


def test_last_words_are_read_as_far_as_a_kubelet_keeps_them() -> None:
    said = resolved().model_dump_json()
    for blanks, result in ((0, resolved()), (pods.LONGEST_TERMINATION, None)):
        assert pods.parse_termination_message(" " * blanks + said) == (result, None)


@pytest.mark.parametrize("kind", ["", "Failed", "FailureTarget", "SuccessCriteriaMet"])
def test_a_result_counts_once_its_job_has_ended_well(kind: str) -> None:
    """A pod may have said one in a Job that ran on, or was given up."""
    said = a_pod(ended(resolved().model_dump_json()))
    assert pods.job_view(a_job("resolve", *([is_so(kind)] if kind else [])), [said]).result is None
    assert pods.job_view(a_job("resolve", is_so("Complete")), [said]).result == resolved()


def test_a_job_that_failed_says_what_its_pod_said() -> None:
    failed = is_so("Failed", reason="PodFailurePolicy", message="exit code 65")
    view = pods.job_view(a_job("build", failed), [a_pod(ended(DENIED.model_dump_json(), 65, "Error"))])
    assert (view.state, view.failure, view.exit_code) == (JobState.FAILED, DENIED, 65)


def test_a_job_whose_pods_are_gone_says_what_the_controller_said() -> None:
    failed = is_so("Failed", reason="DeadlineExceeded", message="was active longer than specified deadline")
    view = pods.job_view(a_job("build", failed), [])
    assert view.failure is not None
    assert (view.failure.reason, view.exit_code) == ("DeadlineExceeded", None)
    bare = pods.job_view(a_job("build", is_so("Failed")), []).failure
    assert bare == Failure(reason="JobFailed", message="the Job failed: JobFailed")
    done = pods.job_view(a_job("build", is_so("Complete")), [])
    assert (done.state, done.result, done.failure) == (JobState.SUCCEEDED, None, None)


def test_the_newest_pod_that_spoke_counts_and_only_pods_of_this_job() -> None:
    first = a_pod(ended(DENIED.model_dump_json(), 65), at="2027-01-15T08:01:00Z")
    second = a_pod(ended(resolved().model_dump_json()), at="2027-01-15T08:02:00Z")
    running = a_pod({"state": {"running": {}}}, at="2027-01-15T08:03:00Z")
    foreign = a_pod(ended(DENIED.model_dump_json(), 65), owner="uid-earlier", at="2027-01-15T08:04:00Z")
    view = pods.job_view(a_job("resolve", is_so("Complete")), [running, foreign, second, first])
    assert (view.result, view.failure, view.exit_code) == (resolved(), None, 0)


@pytest.mark.parametrize("verb", ["build", "validate"])
def test_out_of_memory_names_the_field_and_the_remedy(verb: str) -> None:
    view = pods.job_view(a_job(verb, is_so("Failed")), [a_pod(ended("", 137, "OOMKilled"))])
    assert view.failure is not None
    assert (view.failure.reason, view.exit_code) == ("OutOfMemory", 137)
    assert view.failure.field == "spec.build.resources.limits.memory"
    assert view.failure.remedy


def test_the_memory_of_a_listing_is_not_the_users_to_set() -> None:
    view = pods.job_view(a_job("resolve", is_so("Failed")), [a_pod(ended("", 137, "OOMKilled"))])
    assert view.failure is not None
    assert (view.failure.reason, view.failure.field) == ("OutOfMemory", None)
    assert view.failure.remedy
    assert "prefix or path in spec.source" in view.failure.remedy


@pytest.mark.parametrize(("code", "name"), [(139, "SIGSEGV"), (134, "SIGABRT"), (132, "SIGILL")])
@pytest.mark.parametrize("verb", ["build", "validate"])
def test_a_fault_in_native_code_names_the_signal_the_field_and_the_remedy(verb: str, code: int, name: str) -> None:
    failure = pods.job_view(a_job(verb, is_so("Failed")), [a_pod(ended("", code))]).failure
    assert failure is not None
    assert (failure.reason, failure.field) == ("Crashed", "spec.index.factory")
    assert name in failure.message
    assert failure.remedy


@pytest.mark.parametrize("code", [1, 70, 127, 128, 137, 143])
def test_other_exit_codes_are_no_fault_in_native_code(code: int) -> None:
    assert pods.job_view(a_job("build", is_so("Running", "False")), [a_pod(ended("", code))]).failure is None


def test_a_job_waits_for_a_node_or_a_secret() -> None:
    pending = is_so("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: Insufficient nvidia.com/gpu")
    view = pods.job_view(a_job("build"), [a_pod(conditions=(pending,))])
    assert (view.unschedulable_since, view.unschedulable) == (to_unix(LATER), "0/3 nodes: Insufficient nvidia.com/gpu")
    gated = is_so("PodScheduled", "False", reason="SchedulingGated", message="gated")
    assert pods.job_view(a_job("build"), [a_pod(conditions=(gated,))]).unschedulable_since is None
    missing = waiting("CreateContainerConfigError", 'secret "s3" not found')
    assert pods.job_view(a_job("build"), [a_pod(missing)]).waiting == 'Secret/s3: secret "s3" not found'
    over = pods.job_view(a_job("build", is_so("Failed")), [a_pod(missing, conditions=(pending,))])
    assert (over.waiting, over.unschedulable_since) == ("", None)


def packed(document: bytes) -> str:
    return pack(document).decode()


def test_what_was_too_long_is_unpacked() -> None:
    assert pods.parse_termination_message(packed(DENIED.model_dump_json(by_alias=True).encode())) == (None, DENIED)


@pytest.mark.parametrize(
    "text",
    [
        "", "Segmentation fault", "{", "null", "7", "[]", '"Failure"', "{}", '{"kind": "Failure"}', "\x00\xff",
        '{"kind": "Build", "count": "many"}', '{"kind": "Ghost"}', '{"kind": ["Failure"]}', '{"kind": {}}',
        "[" * 4096, '{"a":' * 800,
        '{"kind": "Packed"}', '{"kind": "Packed", "zlib": 7}', '{"kind": "Packed", "zlib": "\u00e4"}',
        '{"kind": "Packed", "zlib": "abcde"}', packed(b"{"), packed(packed(b'{"kind": "Build"}').encode()),
        packed(b'{"kind": "Failure", "reason": "A", "message": "' + b" " * 8_000_000 + b'"}'),
        packed(b"[" * 60_000),
    ],
)  # fmt: skip
def test_whatever_a_crash_left_as_last_word_is_no_exception(text: str) -> None:
    assert pods.parse_termination_message(text) == (None, None)
    view = pods.job_view(a_job("build", is_so("Failed")), [a_pod(ended(text, 139, "Error"))])
    assert (view.result, view.exit_code) == (None, 139)
    assert pods.pod_view(a_pod(ended(text, 139))).failure is None


def test_words_of_the_contract_are_understood() -> None:
    assert pods.parse_termination_message(DENIED.model_dump_json(by_alias=True)) == (None, DENIED)
    result, failure = pods.parse_termination_message(resolved().model_dump_json(by_alias=True, exclude_none=True))
    assert isinstance(result, ResolveResult)
    assert failure is None


def test_a_job_that_nobody_lets_have_a_pod_says_since_when() -> None:
    """A quota says so in Events only. One that has had a pod, has ended, or is held back waits for no such thing."""
    bare = a_job("build")
    assert pods.job_view(bare, []).podless_since == to_unix(AT)
    started = bare | {"status": {"startTime": LATER}}
    assert pods.job_view(started, []).podless_since == to_unix(LATER)
    lost = [bare | {"status": {count: 1}} for count in ("active", "failed")]
    let_go = a_job("build", is_so("Suspended"))  # its controller has not seen yet that it may run
    others = (bare | {"spec": {"suspend": True}}, a_job("build", is_so("Failed")), let_go, *lost)
    assert [pods.job_view(one, []).podless_since for one in others] == [None] * 5
    assert pods.job_view(a_job("build", is_so("Suspended", "False")), []).podless_since == to_unix(AT)
    assert pods.job_view(bare, [a_pod()]).podless_since is None


# ---------------------------------------------------------------- searcher pods


def test_a_ready_pod() -> None:
    raw = a_pod({"restartCount": 1, "state": {"running": {}}}, conditions=(is_so("PodScheduled"), is_so("Ready")))
    view = pods.pod_view(raw)
    assert (view.name, view.address, view.ready, view.restarts, view.deleting) == ("pod-1", "10.0.0.7", True, 1, False)
    assert (view.scheduled_at, view.unschedulable, view.waiting, view.failure) == (to_unix(LATER), "", "", None)
    assert pods.pod_view(raw | {"metadata": raw["metadata"] | {"deletionTimestamp": AT}}).deleting


def test_a_pod_that_was_only_just_made() -> None:
    view = pods.pod_view({"metadata": {"name": "pod-1"}})
    assert (view.address, view.ready, view.scheduled_at, view.waiting) == ("", False, None, "")


def test_a_pod_that_refuses_says_why_between_its_restarts() -> None:
    word = Failure(reason="CanaryRecall", message="recall 0.80").model_dump_json()
    crashing = {
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 70, "message": word}},
    }
    view = pods.pod_view(a_pod(crashing))
    assert view.failure is not None
    assert (view.failure.reason, view.restarts, view.waiting) == ("CanaryRecall", 3, "")


@pytest.mark.parametrize(
    ("container", "says"),
    [
        (waiting("ImagePullBackOff", "not found"), "ImagePullBackOff: not found"),
        (waiting("ErrImageNeverPull"), "ErrImageNeverPull"),
        (waiting("CreateContainerConfigError", 'secret "s3" not found'), 'Secret/s3: secret "s3" not found'),
        (
            waiting("CreateContainerConfigError", 'configmap "site" not found'),
            'ConfigMap/site: configmap "site" not found',
        ),
        (waiting("CreateContainerConfigError", "no such key"), "CreateContainerConfigError: no such key"),
        (waiting("ContainerCreating"), ""),
        (waiting("PodInitializing"), ""),
        (waiting("CrashLoopBackOff", "back-off"), ""),
        ({"state": {"running": {}}}, ""),
    ],
)
def test_what_a_pod_waits_for(container: Raw, says: str) -> None:
    assert pods.pod_view(a_pod(container)).waiting == says


def test_a_pod_whose_mounted_secret_is_missing_says_so_after_a_while_and_no_other_does() -> None:
    """The kubelet says only ContainerCreating; its condition tells that it never got beyond the volumes."""
    since = to_unix(LATER)
    away = is_so("PodReadyToStartContainers", "False")
    raw = a_pod(waiting("ContainerCreating"), conditions=(is_so("PodScheduled"), away))
    raw["spec"] = {
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "tokens", "secret": {"secretName": "clients"}}]
    }
    assert pods.pod_view(raw, since + pods.UNMOUNTED_SECONDS - 1).waiting == ""
    told = pods.pod_view(raw, since + pods.UNMOUNTED_SECONDS).waiting
    assert told.startswith("Secret/clients: ")
    raw["spec"]["volumes"][1] = {"name": "trust-bundle", "configMap": {"name": "house-ca"}}
    assert pods.pod_view(raw, since + 999).waiting.startswith("ConfigMap/house-ca: ")
    raw["spec"]["volumes"][1] = {"name": "tokens", "secret": {"secretName": "clients"}}
    assert pods.pod_view(raw, since + 999).waiting == told, "a text that changes would be a write at every look"
    pulling = a_pod(waiting("ContainerCreating"), conditions=(is_so("PodReadyToStartContainers"),))
    for other in (raw | {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}, pulling | {"spec": raw["spec"]}):
        assert pods.pod_view(other, since + 999).waiting == ""


# ---------------------------------------------------------------- since when nothing is ready


def test_since_when_no_pod_is_ready() -> None:
    deployment: Raw = {"metadata": {"creationTimestamp": AT}}
    assert pods.unready_since(deployment, []) == to_unix(AT)
    unavailable: Raw = deployment | {"status": {"conditions": [is_so("Available", "False")]}}
    assert pods.unready_since(unavailable, []) == to_unix(LATER)
    down: list[Mapping[str, Any]] = [
        a_pod(conditions=(is_so("Ready", "False", lastTransitionTime=at),)) for at in (AT, LATER)
    ]
    assert pods.unready_since(deployment, down) == to_unix(LATER)
    up = a_pod(conditions=(is_so("Ready"),))
    assert pods.unready_since(deployment, [*down, up]) is None
    leaving = a_pod(conditions=(is_so("Ready"),), deletionTimestamp=AT)
    assert pods.unready_since(deployment, [leaving, down[0]]) == to_unix(AT)


def test_since_when_pods_have_no_place() -> None:
    full = is_so("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes")
    assert pods.pod_view(a_pod(conditions=(full,))).unschedulable_since == to_unix(LATER)
    assert pods.pod_view(a_pod(conditions=(is_so("PodScheduled"),))).unschedulable_since is None
    beyond = {"status": {"conditions": [is_so("ReplicaFailure", reason="FailedCreate")]}}
    assert pods.refused_since(beyond) == to_unix(LATER)
    over = {"status": {"conditions": [is_so("ReplicaFailure", "False")]}}
    assert [pods.refused_since(one) for one in (over, {})] == [None, None]
