"""The programs of the cluster and of tests, built (Go) or fetched (npm) once per version and kept in the cache."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import host, layout
from .locks import exclusive
from .terminal import ClusterError, output_of, run_logged

STRIP = "-s -w"


@dataclass(frozen=True, slots=True)
class Build:
    """One program: a `package` of a module of ours in `folder`, or a published one at its pinned version."""

    name: str
    title: str
    expect: str
    folder: str = ""
    ldflags: str = STRIP
    optional: bool = False
    """Whether a cluster does without it: built only where it is asked for."""
    package: str = "."


def _kubernetes_flags() -> str:
    version = layout.VERSIONS["kubernetes"]["version"]
    major, minor, _ = version.split(".")
    stamp = "-X k8s.io/component-base/version.git"
    return f"{STRIP} {stamp}Version=v{version} {stamp}Major={major} {stamp}Minor={minor}"


HELM_FLAGS = f"{STRIP} -X helm.sh/helm/v3/internal/version.version=v{layout.VERSIONS['helm']['version']}"
ARGOCD_FLAGS = f"{STRIP} -X github.com/argoproj/argo-cd/v3/common.version={layout.VERSIONS['argocd']['version']}"
BUILDS = (
    Build("kubernetes", "Kubernetes", "about 5 min, once", folder="kube", ldflags=_kubernetes_flags()),
    Build("coredns", "CoreDNS", "about 1 min, once", folder="coredns"),
    Build("versitygw", "the S3 server versitygw", "about 1 min, once"),
    Build("helm", "Helm", "about 1 min, once", ldflags=HELM_FLAGS),
    Build("argocd", "Argo CD", "about 5 min, once", "argocd", ARGOCD_FLAGS, True, "github.com/argoproj/argo-cd/v3/cmd"),
    Build("argocd-scripts", "Argo CD's scripts", "about 3 min, once", "argocd", STRIP, True, "./scripts"),
    Build("registry", "the registry distribution", "about 2 min, once", optional=True),
    Build("cosign", "cosign", "up to 25 min beside other work, once", optional=True),
    Build("contour", "Contour", "about 5 min, once", optional=True),
    Build("otelcol", "OpenTelemetry's collector", "about 2 min, once", folder="otelcol", optional=True),
    Build("istio-inject", "Istio's injector", "about 8 min, once", folder="istio", optional=True),
    Build("kueue", "Kueue", "about 10 min, once", optional=True),
    Build("fake-gcs-server", "fake-gcs-server", "about 2 min, once", optional=True),
    Build("azurite", "Azurite", "about 30 s, once", optional=True),
)


def missing(*names: str) -> list[Build]:
    """Those of the named programs (default: all that a cluster needs) that the cache lacks."""
    wanted = [build for build in BUILDS if (build.name in names if names else not build.optional)]
    return [build for build in wanted if not layout.binary(build.name).exists()]


def ensure(*names: str) -> None:
    """Builds what is `missing`, one after another."""
    for build in missing(*names):
        with exclusive(f"build-{build.name}"):
            if not layout.binary(build.name).exists():  # who had the lock may have made it
                _build(build)


def module_folder(name: str) -> Path:
    """The source of a published program at its pinned version, with all that comes beside its code."""
    facts = layout.VERSIONS[name]
    module = f"{facts['module']}@v{facts['version']}"
    said = output_of([host.ensure_go(), "mod", "download", "-json", module])
    return Path(json.loads(said)["Dir"])


def pause() -> Path:
    """The pause program; so small that it is built anew whenever its image is."""
    target = layout.BIN / "pause"
    _go("the pause program", "seconds", ["build", "-ldflags", STRIP, "-o", str(target), "."], "pause", "pause")
    return target


def _build(build: Build) -> None:
    version = layout.VERSIONS[build.name]["version"]
    target = layout.binary(build.name)
    staging = layout.BIN / "staging" / build.name
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    title = f"{build.title} {version}"
    if "npm" in layout.VERSIONS[build.name]:
        _fetch(build, title, staging)
    else:
        _compile(build, title, staging)
    # Moved only when complete, so that an interrupted build is never taken for a finished one.
    (staging / build.name).replace(target)
    shutil.rmtree(staging)


def _fetch(build: Build, title: str, staging: Path) -> None:
    """A package of npm with what it needs, and a script that has the machine's node run it."""
    facts, program = layout.VERSIONS[build.name], staging / build.name
    if not (shutil.which("node") and shutil.which("npm")):
        raise ClusterError(f"{title} needs node and npm: install them (Debian: nodejs, npm)")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(staging / "npm")]
    log = layout.LOGS / f"build-{build.name}.log"
    run_logged(f"fetching {title}", build.expect, [*install, f"{facts['npm']}@{facts['version']}"], log)
    folder = layout.BIN / "npm" / layout.binary(build.name).name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    (staging / "npm").replace(folder)
    program.write_text(f'#!/bin/sh\nexec node "{folder}/node_modules/{facts["program"]}" "$@"\n')
    program.chmod(0o755)


def _compile(build: Build, title: str, staging: Path) -> None:
    version = layout.VERSIONS[build.name]["version"]
    if build.folder:
        arguments = ["build", "-ldflags", build.ldflags, "-o", str(staging / build.name), build.package]
    else:
        package = layout.VERSIONS[build.name]["package"]
        arguments = ["install", "-ldflags", build.ldflags, f"{package}@v{version}"]
    _go(title, build.expect, arguments, build.name, build.folder, staging)


def _go(title: str, expect: str, arguments: list[str], log: str, folder: str, gobin: Path | None = None) -> None:
    verb, *rest = arguments
    go = host.ensure_go()
    command = [go, verb, "-trimpath", *(["-buildvcs=false"] if verb == "build" else []), *rest]
    if shutil.which("nice"):
        command = ["nice", *command]
    layout.BIN.mkdir(parents=True, exist_ok=True)
    log_file = layout.LOGS / f"build-{log}.log"
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **({"GOBIN": str(gobin)} if gobin else {})}
    run_logged(f"building {title}", expect, command, log_file, env=env, cwd=layout.HERE / folder)
