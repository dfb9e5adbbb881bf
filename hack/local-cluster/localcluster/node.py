"""Starts and ends the node: one `unshare` process whose namespaces hold everything, and the link to it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import Template

from . import layout, pki, processes
from .terminal import ClusterError, output_of

COVERS = ("var-lib-kubelet", "var-lib-cni", "var-log-containers")  # over layout.MOUNT_POINTS, by namespaces.sh
STATE_FOLDERS = ("audit", "etcd", "kubelet", "pod-logs", "volume-plugins", *COVERS)
SCRIPT, SHARED = layout.HERE / "node.sh", layout.HERE / "namespaces.sh"
"""The first sources the second, as worker.sh does."""
CONFIGURATION = {  # template in config/: file in CONF
    "audit-policy.yaml": "audit-policy.yaml",
    "containerd.toml": "containerd.toml",
    "kubelet.yaml": "kubelet.yaml",
    "proxy.yaml": "proxy.yaml",
    "Corefile": "Corefile",
    "resolv.conf": "resolv.conf",
    "pods.conflist": "cni/10-pods.conflist",
}
OUTPUT = "node.log"
ETCD_URL = "http://127.0.0.1:2379"


def running() -> bool:
    """Whether the recorded node is alive."""
    return init_pid() is not None


def init_pid() -> int | None:
    """Process id, as the host sees it, of PID 1 inside the namespaces; None when it is not ours or not there."""
    return processes.init_pid(layout.RECORD)


def require_init_pid() -> int:
    """The same of a node that must run. Raises ClusterError."""
    pid = init_pid()
    if pid is None:
        raise ClusterError("the local cluster is not running: start it with `cluster up`")
    return pid


def outdated() -> bool:
    """Whether the node runs with another configuration than this checkout's: flags, files, versions or addresses."""
    try:
        return running() and layout.CONFIGURATION.read_text() != digest()
    except OSError:
        return True  # of before it was recorded


def digest() -> str:
    """What changes when the node must be started again for a change to be in effect."""
    parts = [
        SCRIPT.read_text(),
        SHARED.read_text(),
        *(filled_in(name, layout.substitutions()) for name in CONFIGURATION),
        json.dumps(layout.substitutions()),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def inside(*command: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """The command line that runs `command` in the node's namespaces."""
    return [*processes.inside(require_init_pid()), *command]


def compact() -> int:
    """etcd forgets all that was before now, as a control plane has it do every five minutes; the revision of now."""
    told = json.loads(_ask_etcd("range", {"key": base64.b64encode(b"/").decode()}))
    revision = int(told["header"]["revision"])
    _ask_etcd("compaction", {"revision": revision, "physical": True})
    return revision


def _ask_etcd(what: str, body: Mapping[str, object]) -> str:
    """The JSON that its gateway answers; it listens inside the node only."""
    return output_of(
        [*map(str, inside("curl", "--fail", "-sS", f"{ETCD_URL}/v3/kv/{what}", "--data", json.dumps(body)))]
    )


def start() -> None:
    """Writes the configuration, starts the namespaces, connects them to the host."""
    _write_configuration()
    for point in layout.MOUNT_POINTS:
        Path(point).mkdir(parents=True, exist_ok=True)
    _remove_link()
    for old in layout.NODE_LOGS.glob("*.log"):
        old.replace(old.with_suffix(".log.before"))
    init = processes.begin(SCRIPT, layout.RECORD, layout.NODE_LOGS / OUTPUT, environment(layout.substitutions()))
    _connect(init)


def stop() -> None:
    """Ends the namespaces and with them every pod and component; state stays."""
    processes.end(layout.RECORD)
    _remove_link()
    for root in (*Path("/sys/fs/cgroup").glob("kubepods"), *Path("/sys/fs/cgroup").glob("*/kubepods")):
        processes.remove_empty(root)


def purge() -> None:
    """Deletes the state of a stopped cluster; the builds stay."""
    shutil.rmtree(layout.STATE, ignore_errors=True)
    if layout.STATE.exists():
        raise ClusterError(f"cannot delete all of {layout.STATE}: something still uses it")
    for point in layout.MOUNT_POINTS:
        with suppress(OSError):  # not ours alone: somebody else's files are in it
            Path(point).rmdir()


def _write_configuration() -> None:
    for folder in (layout.CONF / "cni", layout.NODE_LOGS, *(layout.STATE / name for name in STATE_FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
    pki.ensure()
    pki.write_kubeconfigs()
    for name, target in CONFIGURATION.items():
        (layout.CONF / target).write_text(filled_in(name, layout.substitutions()))
    layout.CONFIGURATION.write_text(digest())


def filled_in(name: str, values: Mapping[str, str]) -> str:
    """A file of config/ with every ${NAME} replaced."""
    return Template((layout.HERE / "config" / name).read_text()).substitute(values)


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """The host's environment without proxies, which would catch the components' calls to one another; and `values`."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, **values, "PATH": f"{path}:{os.environ.get('PATH', '')}"}


def _connect(init: int) -> None:
    """A veth pair between host and node, and the host's routes to pods and Services."""
    enter = ["nsenter", "-t", str(init), "-n"]
    # The name of the node's end is set inside, last, because namespaces.sh waits for it.
    output_of(["ip", "link", "add", layout.HOST_LINK, "type", "veth", "peer", "name", "vix-peer", "netns", str(init)])
    output_of([*enter, "ip", "link", "set", "vix-peer", "name", layout.NODE_LINK])
    output_of(["ip", "addr", "add", f"{layout.HOST_IP}/{layout.LINK_PREFIX}", "dev", layout.HOST_LINK])
    output_of(["ip", "link", "set", layout.HOST_LINK, "up"])
    for cidr in (layout.CLUSTER_CIDR, layout.SERVICE_CIDR):
        output_of(["ip", "route", "replace", cidr, "via", layout.NODE_IP, "dev", layout.HOST_LINK])


def _remove_link() -> None:
    """The host's end; its routes and the other end go with it. The kernel does it too, some time after a stop."""
    if Path("/sys/class/net", layout.HOST_LINK).exists():
        subprocess.run(["ip", "link", "del", layout.HOST_LINK], capture_output=True, check=False)
