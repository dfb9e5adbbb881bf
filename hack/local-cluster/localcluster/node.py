"""Starts and ends the node: one `unshare` process whose namespaces hold everything, and the link to it.

Ends only processes recorded by id *and* start time, so an id the kernel gave to someone else is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from string import Template

from . import layout, pki
from .terminal import ClusterError, last_lines, output_of

COVERS = ("var-lib-kubelet", "var-lib-cni", "var-log-containers")  # over layout.MOUNT_POINTS, by node.sh
STATE_FOLDERS = ("audit", "etcd", "kubelet", "pod-logs", "volume-plugins", *COVERS)
SCRIPT = layout.HERE / "node.sh"
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

# (id, start time in clock ticks since boot): together they name one process for as long as the machine is up.
Process = tuple[int, str]


def running() -> bool:
    """Whether the recorded node is alive."""
    return init_pid() is not None


def init_pid() -> int | None:
    """Process id, as the host sees it, of PID 1 inside the namespaces; None when it is not ours or not there."""
    init = _record().get("init")
    return init[0] if init and _same_process(init) else None


def outdated() -> bool:
    """Whether the node runs with another configuration than this checkout's: flags, files, versions or addresses."""
    try:
        return running() and layout.CONFIGURATION.read_text() != digest()
    except OSError:
        return True  # of before it was recorded


def digest() -> str:
    """What changes when the node must be started again for a change to be in effect."""
    parts = [SCRIPT.read_text(), *(_filled_in(name) for name in CONFIGURATION), json.dumps(layout.substitutions())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def inside(*command: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """The command line that runs `command` in the node's namespaces."""
    pid = init_pid()
    if pid is None:
        raise ClusterError("the local cluster is not running: start it with `cluster up`")
    return ["nsenter", "-t", str(pid), "-n", "-m", "-p", "-u", "-i", *command]


def start() -> None:
    """Writes the configuration, starts the namespaces, connects them to the host."""
    _write_configuration()
    for point in layout.MOUNT_POINTS:
        Path(point).mkdir(parents=True, exist_ok=True)
    _remove_link()
    for old in layout.NODE_LOGS.glob("*.log"):
        old.replace(old.with_suffix(".log.before"))
    log = layout.NODE_LOGS / OUTPUT
    with log.open("w") as out:
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
             str(SCRIPT)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/",
            # A session of its own: closing the terminal, or Ctrl-C in it, does not end the cluster.
            start_new_session=True, env=_environment(),
        )  # fmt: skip
    init = _child_of(process)
    if init is None:
        process.kill()
        raise ClusterError(f"the node's namespaces did not start. {log} says:\n{last_lines(log)}")
    record = {"unshare": [process.pid, _start_time(process.pid)], "init": [init, _start_time(init)]}
    layout.RECORD.write_text(json.dumps(record))
    _connect(init)


def stop() -> None:
    """Ends the namespaces and with them every pod and component; state stays."""
    record = _record()
    for name in ("init", "unshare"):  # the child first: unshare then reaps it and ends by itself
        if name in record and _same_process(record[name]):
            with suppress(ProcessLookupError):
                os.kill(record[name][0], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_same_process(process) for process in record.values()):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {record} do not end")
        time.sleep(0.05)
    layout.RECORD.unlink(missing_ok=True)
    _remove_link()
    _remove_empty_cgroups()


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
        (layout.CONF / target).write_text(_filled_in(name))
    layout.CONFIGURATION.write_text(digest())


def _filled_in(name: str) -> str:
    """A file of config/ with every ${NAME} replaced."""
    return Template((layout.HERE / "config" / name).read_text()).substitute(layout.substitutions())


def _environment() -> dict[str, str]:
    """The host's environment without proxies, which would catch the components' calls to one another."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, **layout.substitutions(), "PATH": f"{path}:{os.environ.get('PATH', '')}"}


def _connect(init: int) -> None:
    """A veth pair between host and node, and the host's routes to pods and Services."""
    enter = ["nsenter", "-t", str(init), "-n"]
    # The name of the node's end is set inside, last, because node.sh waits for it.
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


def _remove_empty_cgroups() -> None:
    """Deletes the `kubepods` trees that a stop leaves behind; rmdir refuses one that has a process."""
    for root in (*Path("/sys/fs/cgroup").glob("kubepods"), *Path("/sys/fs/cgroup").glob("*/kubepods")):
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def _child_of(process: subprocess.Popen[bytes]) -> int | None:
    """The first child of unshare; None when it ended, or has none after 5 s."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _stat_fields(int(entry.name))[1:2] == [str(process.pid)]:
                return int(entry.name)
        time.sleep(0.02)
    return None


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (state, parent, ...); empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when it is gone or a zombie."""
    fields = _stat_fields(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _same_process(process: Process) -> bool:
    pid, start_time = process
    return bool(start_time) and _start_time(pid) == start_time


def _record() -> dict[str, Process]:
    """The processes `start` recorded, by name; empty without a record, or with a damaged one."""
    try:
        written = json.loads(layout.RECORD.read_text())
        return {name: (int(pid), str(start_time)) for name, (pid, start_time) in written.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
