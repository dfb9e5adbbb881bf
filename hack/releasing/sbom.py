"""What is in an image, as CycloneDX: Python's packages as uv tells them of the lock, Debian's as its dpkg does."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.base import CHECKOUT
from harness.commands import run
from harness.errors import HarnessError

Json = dict[str, Any]
DPKG = "var/lib/dpkg/status"
DISTRIBUTION = "etc/os-release", "usr/lib/os-release"


def of_image(uv: str, extra: str, layout: Path, name: str, version: str, digest: str) -> Json:
    """The bill of an image that lies as an OCI layout in `layout`; `extra`: what of the lock is installed in it."""
    command = [uv, "export", "--preview-features", "sbom-export", "--quiet", "--frozen", "--no-dev", "--extra", extra]
    told: Json = json.loads(run([*command, "--project", CHECKOUT, "--format", "cyclonedx1.5"], timeout=60))
    purl = f"pkg:oci/{name}@{quote(digest, safe='')}"
    about = {"type": "container", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    project = told["metadata"]["component"]
    packages = [{key: value for key, value in one.items() if key != "externalReferences"} for one in told["components"]]
    debian = debian_components(layout)
    edges = [*told.get("dependencies", []), {"ref": purl, "dependsOn": [project["bom-ref"], *_refs(debian)]}]
    told["metadata"]["component"] = about
    return told | {"components": [project, *packages, *debian], "dependencies": edges}


def _refs(components: list[Json]) -> list[str]:
    return [one["bom-ref"] for one in components]


def debian_components(layout: Path) -> list[Json]:
    """The packages that the dpkg of an OCI layout's first platform knows."""
    files = files_of(layout, (DPKG, *DISTRIBUTION))
    if DPKG not in files:
        raise HarnessError(
            f"the image in {layout} has no {DPKG}: its base is no Debian, and nothing tells what is in it"
        )
    about = dict(line.split("=", 1) for line in _first(files, DISTRIBUTION).splitlines() if "=" in line)
    release = f"debian-{about.get('VERSION_ID', '').strip(chr(34))}"
    return sorted(_dpkg_components(files[DPKG], release), key=lambda one: str(one["purl"]))


def _first(files: dict[str, str], names: tuple[str, ...]) -> str:
    return next((files[name] for name in names if name in files), "")


def _dpkg_components(status: str, release: str) -> Iterator[Json]:
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}&distro={release}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def files_of(layout: Path, names: tuple[str, ...]) -> dict[str, str]:
    """These files of an OCI layout's first platform, as its topmost layers have them."""
    blobs = layout / "blobs"

    def blob(digest: str) -> Path:
        return blobs / digest.replace(":", "/")

    document: Json = json.loads((layout / "index.json").read_text())
    while "manifests" in document:
        document = json.loads(blob(document["manifests"][0]["digest"]).read_text())
    found: dict[str, str] = {}
    for layer in document["layers"]:
        with tarfile.open(blob(layer["digest"])) as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if name in names and entry.isfile() and (content := tar.extractfile(entry)):
                    found[name] = content.read().decode()
    return found
