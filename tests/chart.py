"""Renders the chart with the real Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

import yaml
from layers import CHECKOUT, program

Json = dict[str, Any]

CHART = CHECKOUT / "charts" / "vectorindex-operator"
HOME = "vectorindex-system"
IMAGE = "image.repository=example/vectorindex-operator"


def helm(
    *settings: str,
    release: str = "operator",
    home: str = HOME,
    cluster: Sequence[str] = (),
    values: Json | None = None,
) -> subprocess.CompletedProcess[str]:
    """`helm template` with `values`, and `--set` for each of `settings`. `cluster`: flags of one to look into."""
    command = [str(program("apiserver", "helm")), "template", release, str(CHART), "--namespace", home]
    sets = [argument for setting in settings for argument in ("--set", setting)]
    command += ["--values", "-", *sets, *cluster]
    return subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, check=False)


def render(
    *settings: str,
    release: str = "operator",
    home: str = HOME,
    cluster: Sequence[str] = (),
    values: Json | None = None,
) -> list[Json]:
    """The chart's objects. `settings` come after a repository for the image."""
    done = helm(IMAGE, *settings, release=release, home=home, cluster=cluster, values=values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects: list[Json], kind: str) -> list[Json]:
    return [one for one in objects if one["kind"] == kind]
