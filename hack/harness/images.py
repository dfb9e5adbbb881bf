"""The operator's and the searcher's image, with a tag that names what they were built from.

The tag must change with the content: pods use IfNotPresent, and the operator freezes images into revisions.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.base import CHECKOUT, Cluster, Image
from harness.errors import HarnessError

INPUTS = (
    "Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "client", "operator", "plugin", "searcher",
)  # fmt: skip
"""What .dockerignore lets into a build."""


@dataclass(frozen=True, slots=True)
class Images:
    operator: Image
    searcher: Image


def build(cluster: Cluster, checkout: Path = CHECKOUT, tag: str = "") -> Images:
    """Both images of a checkout, in the cluster. Seconds when nothing changed. `tag`: default, from the content."""
    tag = tag or content_tag(checkout)
    return Images(
        operator=cluster.provide_image("operator", tag, checkout),
        searcher=cluster.provide_image("searcher", tag, checkout),
    )


def content_tag(checkout: Path = CHECKOUT) -> str:
    """`dev-` and a hash of the files that go into the images."""
    digest = hashlib.sha256()
    for path in sorted(_files(checkout)):
        digest.update(f"{path.relative_to(checkout)}\0{os.access(path, os.X_OK):d}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"dev-{digest.hexdigest()[:10]}"


def _files(checkout: Path) -> Iterable[Path]:
    """The files of a build that git does not ignore; all of them where there is no git."""
    command = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard", *INPUTS]
    try:
        listed = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"git cannot list the files of the image: {error}") from error
    if listed.returncode == 0:
        paths: Iterable[Path] = (checkout / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    else:
        tops = [checkout / name for name in INPUTS]
        paths = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
