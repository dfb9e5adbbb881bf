"""The files of a release: wheel and source, chart, bills of materials, where they come from, checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.base import CHECKOUT
from harness.commands import run
from releasing.versions import NAME, git

Json = dict[str, Any]
CHART = CHECKOUT / "charts" / NAME
SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"
IMAGES = "images"
"""A folder of OCI layouts, which the registry gets; no file of the release."""


def python(uv: str, out: Path) -> None:
    """Wheel and source, by build tools that the lock names with their hashes; the same bytes from the same commit."""
    tools = out / "build-constraints.txt"
    run([uv, "export", "--quiet", "--frozen", "--only-group", "build", "--no-header", "--project", CHECKOUT,
         "--output-file", tools], timeout=60)  # fmt: skip
    epoch = git(CHECKOUT, "log", "-1", "--format=%ct")
    run([uv, "build", "--quiet", "--out-dir", out, "--build-constraints", tools, "--require-hashes", CHECKOUT],
        timeout=300, environment={"SOURCE_DATE_EPOCH": epoch} if epoch else {})  # fmt: skip
    tools.unlink()
    (out / ".gitignore").unlink(missing_ok=True)  # uv's own


def chart(helm: str, out: Path) -> Path:
    """The chart as Helm packs it; what it is called."""
    said = run([helm, "package", CHART, "--destination", out], timeout=60)
    return Path(said.strip().rpartition(": ")[2])


def provenance(base: str) -> Json:
    """SLSA's provenance of all that is released: out of which commit it was made, on which base image.

    It is what the builder says of itself: without the signature that `cosign attest` puts to it, it proves nothing.
    `base`: REFERENCE@sha256:...; empty: what this machine made in its place.
    """
    commit = git(CHECKOUT, "rev-parse", "HEAD")
    lock = hashlib.sha256((CHECKOUT / "uv.lock").read_bytes()).hexdigest()
    materials: list[Json] = [
        {"uri": f"git+file:.@{commit}", "digest": {"gitCommit": commit}},
        {"uri": "uv.lock", "digest": {"sha256": lock}},
    ]
    if base:
        name, _, digest = base.partition("@sha256:")
        materials.append({"uri": f"pkg:docker/{name}", "digest": {"sha256": digest}})
    return {
        "buildDefinition": {
            "buildType": "make release",
            "externalParameters": {"commit": commit, "base": base or "the stand-in of this machine"},
            "resolvedDependencies": materials,
        },
        "runDetails": {"builder": {"id": "hack/releasing"}},
    }


def sums(out: Path) -> dict[str, str]:
    """Name: SHA-256 of every file of the release but its checksums."""
    files = sorted(path for path in out.iterdir() if path.is_file() and path.name != SUMS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_sums(out: Path) -> None:
    """As `sha256sum --check SHA256SUMS` reads them."""
    (out / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums(out).items()))


def write(path: Path, document: Json) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")
