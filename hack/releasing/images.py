"""The images of a release, for every platform, as one digest each: into a registry, or into a folder."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.base import CHECKOUT
from harness.errors import HarnessError
from harness.images import content_tag

TARGETS = ("operator", "searcher")
PLATFORMS = ("linux/amd64", "linux/arm64")
"""What a release is for. Nothing in the Dockerfile is about one of them, and the lock has wheels for both."""
MACHINES = {"linux/amd64": ("x86_64", "AMD64"), "linux/arm64": ("aarch64", "arm64")}
EMULATORS = {"linux/amd64": "qemu-x86_64", "linux/arm64": "qemu-aarch64"}
HANDLERS = Path("/proc/sys/fs/binfmt_misc")
TOOL = CHECKOUT / "hack" / "local-cluster" / "cluster"
FIRST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Registry:
    """`prefix`: what stands before an image's name, as registry.example.com/team."""

    prefix: str
    authfile: Path | None = None
    plain_http: bool = False

    def flags(self) -> list[str]:
        auth = ["--authfile", str(self.authfile)] if self.authfile else []
        return [*auth, *(["--plain-http"] if self.plain_http else [])]


def local() -> Registry:
    """That of `cluster registry on`."""
    return Registry("127.0.0.1:5000", _cache() / "registry-auth.json")


def local_ca() -> Path:
    """Who vouches for its certificate, for SSL_CERT_FILE."""
    return _cache() / "registry-ca.crt"


def _cache() -> Path:
    return Path(os.environ.get("VECTORINDEX_CACHE") or Path.home() / ".cache" / "vectorindex-operator")


def repository(registry: str, target: str) -> str:
    return f"{registry}/vectorindex-{target}"


def buildable(wanted: str, machine: str = "", handlers: Path = HANDLERS) -> bool:
    """Whether this machine runs programs of a platform, as a build does: its own, or by an emulator."""
    return (machine or platform.machine()) in MACHINES[wanted] or (handlers / EMULATORS[wanted]).exists()


def command(target: str, to: str, platforms: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
    """Builds one image for these platforms and sends it; prints its digest."""
    wanted = [word for one in platforms for word in ("--platform", one)]
    files = ["--context", str(CHECKOUT), "--file", str(CHECKOUT / "Dockerfile")]
    return [sys.executable, str(TOOL), "push-image", "--target", target, "--to", to, *wanted, *flags, *files]


def build(target: str, to: str, platforms: Sequence[str], flags: Sequence[str] = ()) -> str:
    """Does so; the digest. What it does is said on standard error as it goes. Raises HarnessError."""
    done = subprocess.run(
        command(target, to, platforms, flags), stdout=subprocess.PIPE, text=True, check=False, timeout=FIRST_SECONDS
    )
    digest = done.stdout.strip()
    if done.returncode or not digest.startswith("sha256:"):
        raise HarnessError(f"the image {target} did not get to {to}")
    return digest


def push(registry: Registry, tag: str, platforms: Sequence[str] = (), flags: Sequence[str] = ()) -> dict[str, str]:
    """Both images into a registry; their digests. `tag`: default, of what they are made of."""
    tag, flags = tag or content_tag(), [*registry.flags(), *flags]
    return {
        target: build(target, f"docker://{repository(registry.prefix, target)}:{tag}", platforms, flags)
        for target in TARGETS
    }


def values(registry: str, digests: Mapping[str, str]) -> str:
    """A values file of the chart that names these images, and no tag."""
    named = {
        key: {"repository": repository(registry, target), "digest": digests[target]}
        for key, target in {"image": "operator", "searcherImage": "searcher"}.items()
    }
    return yaml.safe_dump(named, sort_keys=False)


def variables(registry: str, digests: Mapping[str, str]) -> str:
    """The same for CLUSTER=current, as words before a command."""
    named = [f"{target.upper()}_DIGEST={digest}" for target, digest in digests.items()]
    return " ".join([f"IMAGE_REPOSITORY={repository(registry, 'operator')}", *named])
