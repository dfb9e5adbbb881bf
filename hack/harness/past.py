"""A release of the past, out of git: its chart and its images, to upgrade from and to go back to."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import images
from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError, LackingError
from harness.images import Images

FIRST_RELEASE = "c85bb2ea340bcb58f38c55c9c9acbb3165462d90"
"""What it wrote is served, read and gone back to by every later release."""
GIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PastRelease:
    commit: str
    chart: Path
    images: Images


@contextmanager
def release(cluster: Cluster, commit: str = FIRST_RELEASE) -> Iterator[PastRelease]:
    """The chart until the end of the block; the images stay in the cluster. Raises LackingError, HarnessError."""
    with checkout(commit) as folder:
        built = images.build(cluster, folder, tag=f"at-{commit[:12]}")
        yield PastRelease(commit, folder / "charts" / "vectorindex-operator", built)


@contextmanager
def checkout(commit: str, repository: Path = CHECKOUT) -> Iterator[Path]:
    """The files of a commit in a folder that is no part of a working tree: there git would hide them from a build."""
    archive = _git(repository, "archive", "--format=tar", commit, what=f"commit {commit}")
    with tempfile.TemporaryDirectory(prefix="vectorindex-past-") as name:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(name, filter="data")
        yield Path(name)


def _git(repository: Path, *arguments: str, what: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"git does not give {what}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        remedy = "a shallow clone lacks it: run `git fetch --unshallow`, in CI check out with the whole history"
        raise LackingError(f"this checkout has no {what} ({said}); {remedy}")
    return done.stdout
