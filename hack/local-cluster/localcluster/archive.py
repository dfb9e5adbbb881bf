"""Container images made without a Dockerfile: one layer, written as a docker-archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def single_binary_layer(layer: Path, binary: Path, name: str, folders: tuple[str, ...] = ()) -> None:
    """A layer with one executable at /`name` and the given empty folders, the same bytes for the same binary."""
    with tarfile.open(layer, "w") as tar:
        for folder in folders:
            entry = tarfile.TarInfo(folder.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        entry = tarfile.TarInfo(name)
        entry.mode, entry.size = 0o755, binary.stat().st_size
        with binary.open("rb") as file:
            tar.addfile(entry, file)


def write(target: Path, reference: str, layer: Path, config: dict[str, object]) -> None:
    """Writes the docker-archive `target`: image `reference` of one uncompressed layer.

    `config` is the image's runtime configuration (Entrypoint, Cmd, Env, ...).
    """
    digest = _sha256(layer)
    image = json.dumps({
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "hack/local-cluster"}],
    }).encode()  # fmt: skip
    name = hashlib.sha256(image).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [reference], "Layers": [f"{digest}.tar"]}]
    partial = target.with_suffix(".part")
    with tarfile.open(partial, "w") as tar:
        _add_bytes(tar, f"{name}.json", image)
        tar.add(layer, f"{digest}.tar")
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
    partial.replace(target)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
