"""Pods of ours after Istio's injector: what docs/platform.md says of annotations, ports, Jobs and Pod Security."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from control_plane import Api
from layers import CHECKOUT
from mesh.injector import Injector
from observations import SETTINGS, index, spec
from unit.test_pods_of_a_platform import build_job

from vectorindex_operator.manifests import searchers

Json = dict[str, Any]
CNI = ("cni.enabled=true",)


def documented() -> Json:
    """The spec of the page's section, which is what people copy."""
    page = (CHECKOUT / "docs" / "platform.md").read_text(encoding="utf-8")
    section = page.split("## In a service mesh\n")[1]
    found: Json = yaml.safe_load(section.split("```yaml\n")[1].partition("```")[0])["spec"]
    return found


def made(**more: Any) -> tuple[Json, Json]:
    """The Deployment of searchers and the Job of a build, of an index with what the page says."""
    said = documented()
    of = spec(build=said["build"], searcher={**said["searcher"], **more})
    return searchers.trial(of, index(of), SETTINGS), build_job(of)


def containers(workload: Json) -> dict[str, Json]:
    pod = workload["spec"]["template"]["spec"]
    return {one["name"]: one for one in (*pod.get("initContainers", ()), *pod["containers"])}


def flag(workload: Json, name: str) -> list[str]:
    """Of who redirects a pod's traffic: its init container, or what it checks where Istio's CNI does."""
    (one,) = (it for key, it in containers(workload).items() if key in ("istio-init", "istio-validation"))
    return str(one["args"][one["args"].index(name) + 1]).split(",")


@pytest.mark.parametrize("values", [(), CNI], ids=["init", "cni"])
def test_searchers_get_a_sidecar_that_leaves_the_admin_port_alone(istio: Injector, values: tuple[str, ...]) -> None:
    searcher, _ = made()
    found = istio.inject(searcher, *values)
    assert containers(found)["istio-proxy"]["restartPolicy"] == "Always"
    assert "8081" in flag(found, "-d"), "what comes"
    assert flag(found, "-o") == ["8081"], "what goes: queries of a shadow"
    assert "8080" not in flag(found, "-d")


def test_probes_are_the_kubelets(istio: Injector) -> None:
    """Unless it is told to leave them, Istio has them asked of the sidecar."""
    before, _ = made()
    found = containers(istio.inject(before))["searcher"]
    assert found == {"resources": {}, **containers(before)["searcher"]}
    annotations = documented()["searcher"]["pod"]["annotations"]
    del annotations["sidecar.istio.io/rewriteAppHTTPProbers"]
    silent, _ = made(pod={"annotations": annotations})
    probe = containers(istio.inject(silent))["searcher"]["readinessProbe"]
    assert probe["httpGet"] == {"path": "/app-health/searcher/readyz", "port": 15020}


def test_a_job_that_says_so_gets_none(istio: Injector) -> None:
    _, job = made()
    assert containers(istio.inject(job)).keys() == {"build"}
    by_annotation = spec(build={"pod": {"annotations": {"sidecar.istio.io/inject": "false"}}})
    assert containers(istio.inject(build_job(by_annotation))).keys() == {"build"}


def test_a_job_that_says_nothing_ends_only_with_a_sidecar_of_the_native_kind(istio: Injector) -> None:
    job = build_job(spec())
    native, other = (istio.inject(job, native=one)["spec"]["template"]["spec"] for one in (True, False))
    assert [one["name"] for one in native["containers"]] == ["build"]
    assert {one["name"] for one in other["containers"]} == {"istio-proxy", "build"}


@pytest.mark.parametrize(("values", "refused"), [((), "NET_ADMIN"), (CNI, "")], ids=["init", "cni"])
def test_pod_security_restricted_needs_istios_cni(
    istio: Injector, api: Api, values: tuple[str, ...], refused: str
) -> None:
    name = f"mesh-{'cni' if values else 'init'}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    for kind, meta in (("Namespace", {"name": name, "labels": labels}), ("ServiceAccount", {"name": "default"})):
        where = {} if kind == "Namespace" else {"namespace": name}
        assert api.apply({"apiVersion": "v1", "kind": kind, "metadata": {**meta, **where}}).ok
    template = istio.inject(made()[0], *values)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "name": "searcher", "namespace": name}
    answer = api.apply(pod, dryRun="All")
    assert answer.ok is not bool(refused), answer.message
    assert refused in answer.message
