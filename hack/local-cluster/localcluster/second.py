"""A second node: another set of namespaces with a container runtime, a kubelet and a kube-proxy, joined to the first.

Its state lies in a folder of the first's, and its cgroups below a root of their own: a kubelet ends what it does not
know in its tree. Of the first node's images it is given those that its pods may need.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from . import api, image_build, layout, node, pki, processes
from .terminal import output_of, say

STATE = layout.STATE / "second"
CONF, PKI, LOGS = STATE / "conf", STATE / "pki", STATE / "log"
RECORD = layout.CACHE / "second-node.json"
SCRIPT = layout.HERE / "worker.sh"
NAME = "local-2"
IP, GATEWAY = "10.89.2.2", "10.89.2.1"
LINK, FIRST_LINK = "vix-second", "vix-first"
POD_CIDR = "10.244.1.0/24"
CGROUP_ROOT = "vix-second"
CONFIGURATION = {
    "containerd.toml": "containerd.toml",
    "kubelet.yaml": "kubelet.yaml",
    "proxy.yaml": "proxy.yaml",
    "resolv.conf": "resolv.conf",
    "pods.conflist": "cni/10-pods.conflist",
}
FOLDERS = ("kubelet", "pod-logs", "volume-plugins", *node.COVERS)
READY_SECONDS = 90


def substitutions() -> dict[str, str]:
    """The layout's, with what is the second node's own. NODE_IP stays the first's: DNS and API server are there."""
    own = {
        "STATE": str(STATE),
        "CONF": str(CONF),
        "PKI": str(PKI),
        "NODE_LOGS": str(LOGS),
        "NODE_NAME": NAME,
        "NODE_POD_CIDR": POD_CIDR,
        "CGROUP_ROOT": f"/{CGROUP_ROOT}",
        "WORKER_IP": IP,
        "WORKER_GATEWAY": GATEWAY,
        "WORKER_LINK": LINK,
    }
    return layout.substitutions() | own


def running() -> bool:
    """Whether the recorded node is alive."""
    return processes.init_pid(RECORD) is not None


def add() -> None:
    """Makes it run, and waits until it is Ready."""
    if running():
        say(f"node {NAME} is already running")
        return
    processes.end(RECORD)  # clears what was left
    _write_configuration()
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    init = processes.begin(SCRIPT, RECORD, LOGS / "node.log", node.environment(substitutions()))
    _connect(init)
    _give_images(init)
    say(f"waiting for node {NAME} (about 15 s) ...")
    api.wait(f"node {NAME} Ready", lambda: api.node_has_reported_since(started, NAME), READY_SECONDS, str(LOGS))
    say(f"node {NAME} is ready")


def lose() -> None:
    """Ends it as a power cut does: its pods are gone, and nobody tells the API server."""
    processes.end(RECORD)
    _remove_cgroups()


def remove() -> None:
    """Ends it and takes it out of the cluster."""
    lose()
    with suppress(OSError):
        api.request("DELETE", f"/api/v1/nodes/{NAME}")
    shutil.rmtree(STATE, ignore_errors=True)


def _write_configuration() -> None:
    for folder in (CONF / "cni", LOGS, PKI, *(STATE / name for name in FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    shutil.copy(layout.PKI / "ca.crt", PKI / "ca.crt")
    subject = f"/O=system:nodes/CN=system:node:{NAME}"
    pki.ensure_certificate(PKI / "kubelet", subject, f"IP:{IP},DNS:{NAME}")
    pki.write_kubeconfig(CONF / "kubelet.kubeconfig", "kubelet", PKI / "kubelet")
    shutil.copy(layout.CONF / "proxy.kubeconfig", CONF / "proxy.kubeconfig")
    for name, target in CONFIGURATION.items():
        (CONF / target).write_text(node.filled_in(name, substitutions()))
    for root in _cgroup_roots():
        root.mkdir(exist_ok=True)
        for inherited in ("cpuset.cpus", "cpuset.mems"):  # of cgroup v1: empty in a new folder, and then nothing runs
            if (root / inherited).exists() and not (root / inherited).read_text().strip():
                (root / inherited).write_text((root.parent / inherited).read_text())


def _connect(init: int) -> None:
    """A veth pair between the nodes, and the first one's route to the second's pods; without it they are nowhere."""
    first = ["nsenter", "-t", str(node.require_init_pid()), "-n"]
    second = ["nsenter", "-t", str(init), "-n"]
    subprocess.run([*first, "ip", "link", "del", FIRST_LINK], capture_output=True, check=False)
    output_of([*first, "ip", "link", "add", FIRST_LINK, "type", "veth", "peer", "name", "vix-peer", "netns", str(init)])
    output_of([*second, "ip", "link", "set", "vix-peer", "name", LINK])
    output_of([*first, "ip", "addr", "add", f"{GATEWAY}/{layout.LINK_PREFIX}", "dev", FIRST_LINK])
    output_of([*first, "ip", "link", "set", FIRST_LINK, "up"])
    output_of([*first, "ip", "route", "replace", POD_CIDR, "via", IP])
    # When the node is lost, packets to its pods are lost too: nobody answers that they cannot be delivered.
    output_of([*first, "ip", "route", "replace", "blackhole", POD_CIDR, "metric", "1000"])


def needed(present: Iterable[str], used: Container[str], built: Mapping[str, float]) -> list[str]:
    """Of the images that the first node has: those that nobody built here (the cluster's own), those that are `used`,
    and of each repository the one that was asked for last. `built`: when, by name. A checkout that is worked on leaves
    an image for each of its states, and a second a piece is minutes."""
    names = list(present)
    newest: dict[str, str] = {}
    for name in sorted((name for name in names if name in built), key=lambda name: (built[name], name)):
        newest[name.rpartition(":")[0]] = name
    return [name for name in names if name not in built or name in used or name in newest.values()]


def _used() -> set[str]:
    """Images of all pods and Deployments, and those that revisions are frozen to."""
    pods, deployments, revisions = (
        (api.get(path) or {}).get("items", [])
        for path in (
            "/api/v1/pods",
            "/apis/apps/v1/deployments",
            "/apis/vectorindex.dev/v1alpha1/vectorindexrevisions",
        )
    )
    specs = [*(pod["spec"] for pod in pods), *(one["spec"]["template"]["spec"] for one in deployments)]
    containers = [one for spec in specs for one in (*spec.get("initContainers", ()), *spec["containers"])]
    return {one["image"] for one in containers} | {one["spec"].get("image", "") for one in revisions}


def _give_images(init: int) -> None:
    """What this node may need and has not; the images are in one archive for a moment."""
    archive = STATE / "images.tar"
    ctr = ["ctr", "--address", layout.CONTAINERD_SOCKET, "--namespace", "k8s.io", "images"]
    inside = processes.inside(init)
    api.wait("its containerd", lambda: _answers([*inside, *ctr, "list", "-q"]), 30, str(LOGS))
    listed = output_of([*map(str, node.inside(*ctr, "list", "-q"))]).split()
    known = output_of([*inside, *ctr, "list", "-q"]).split()
    present = [name for name in listed if "@" not in name and not name.startswith("sha256:")]
    records = {name: image_build.record_of(name) for name in present}
    built = {name: record.stat().st_mtime for name, record in records.items() if record.exists()}
    names = [name for name in needed(present, _used(), built) if name not in known]
    if not names:
        return
    output_of([*map(str, node.inside(*ctr, "export", str(archive), *names))])
    output_of([*inside, *ctr, "import", str(archive)])
    archive.unlink()


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _cgroup_roots() -> list[Path]:
    """The folder of the node's cgroups, in each controller of v1 or in the one tree of v2."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top / CGROUP_ROOT]
    return [folder / CGROUP_ROOT for folder in top.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _remove_cgroups() -> None:
    for root in _cgroup_roots():
        processes.remove_empty(root)
