"""Istio's own injector as a program, and its chart of the same version, which says what is put in."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from layers import CHECKOUT, local_layout, program

Json = dict[str, Any]
LAYER = "mesh"


@dataclass(frozen=True, slots=True)
class Injector:
    """`folder`: for its settings."""

    folder: Path
    _known: dict[tuple[str, ...], Path] = field(default_factory=dict)

    def inject(self, workload: Json, *values: str, native: bool = True) -> Json:
        """A Deployment or a Job as Istio would have its pods. `values`: of its chart, as `--set` takes them; `native`:
        sidecars are init containers that restart."""
        command = [program(LAYER, "istio-inject"), str(self._settings(values))]
        told = {"ENABLE_NATIVE_SIDECARS": str(native).lower()}
        text = yaml.safe_dump(workload)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=told)
        assert done.returncode == 0, done.stderr
        found: Json = next(yaml.safe_load_all(done.stdout))
        return found

    def _settings(self, values: tuple[str, ...]) -> Path:
        """The ConfigMap by which the injector knows what to put in."""
        if values not in self._known:
            chart = _module() / "manifests" / "charts" / "istio-control" / "istio-discovery"
            shown = ["-s", "templates/istiod-injector-configmap.yaml", *(f"--set={one}" for one in values)]
            helm = [str(program(LAYER, "helm")), "template", "istiod", str(chart), "-n", "istio-system", *shown]
            rendered = subprocess.run(helm, capture_output=True, text=True, check=True).stdout
            path = self._known[values] = self.folder / f"injector-{len(self._known)}.yaml"
            path.write_text(rendered)
        return self._known[values]


def _module() -> Path:
    """The folder of Istio's module."""
    folder = CHECKOUT / "hack" / "local-cluster" / "istio"
    name = local_layout().VERSIONS["istio-inject"]["module"]
    command = ["go", "-C", str(folder), "list", "-m", "-f", "{{.Dir}}", name]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
