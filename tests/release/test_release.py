"""`make release PUBLISH=1` as whoever releases types it, and the lines by which others verify what came out.

In a clone with a tag, into a registry on loopback, signed by a key and without sigstore's public log: there is no
internet. Only for this machine's platform.
"""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ports
import pytest
import yaml
from layers import CHECKOUT, program
from waiting import until

from harness.local import PROGRAM
from releasing import versions

LAYER = "release"
RELEASE_SECONDS = 1200
CONFIGURATION = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
BASE = "ARG PYTHON_IMAGE=python:3.11-slim-bookworm\nFROM ${PYTHON_IMAGE} AS base\n"


@dataclass
class Releaser:
    """A tagged clone, a registry, and the programs that a release wants on PATH."""

    clone: Path
    registry: str
    known: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str | Path, code: int = 0, **more: str) -> str:
        """What it printed; it must end with this status."""
        done = subprocess.run(
            list(map(str, words)), cwd=self.clone, env=os.environ | self.known | more,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RELEASE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def line(self, line: str, code: int = 0) -> str:
        return self.run("bash", "-euo", "pipefail", "-c", line, code=code)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The CNCF's distribution on loopback, empty; its address."""
    folder = tmp_path_factory.mktemp("registry")
    with ports.held() as (port,):
        (folder / "config.yaml").write_text(CONFIGURATION.format(folder=folder, port=port))
        process = subprocess.Popen(
            [program(LAYER, "registry"), "serve", folder / "config.yaml"],
            env=os.environ | {"OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            until(lambda: _answers(f"http://127.0.0.1:{port}/v2/"), 15)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def releaser(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Releaser:
    """With what the steps before `make release` leave (CONTRIBUTING.md): notes of this number, a commit, a tag."""
    folder = tmp_path_factory.mktemp("release")
    origin, clone, programs = folder / "origin.git", folder / "clone", folder / "bin"
    programs.mkdir()
    for name in ("cosign", "helm"):
        (programs / name).symlink_to(program(LAYER, name))
    # A release ends with a push of its tag: to this copy, and not to the repository of the checkout.
    subprocess.run(["git", "clone", "-q", "--bare", "--no-tags", CHECKOUT, origin], check=True)
    subprocess.run(["git", "clone", "-q", origin, clone], check=True)
    known = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COSIGN_PASSWORD": ""}
    made = Releaser(clone, registry, known)
    version = versions.read(clone).project
    notes = clone / "CHANGELOG.md"
    notes.write_text(notes.read_text().replace("## Unreleased", f"## {version} (2026-01-01)", 1))
    who = ("-c", "user.name=Releaser", "-c", "user.email=releaser@example.com")
    made.run("git", *who, "commit", "-q", "-a", "-m", "release")
    made.run("git", "tag", f"v{version}")
    made.run("cosign", "generate-key-pair", "--output-key-prefix", folder / "mine")
    made.run("cosign", "generate-key-pair", "--output-key-prefix", folder / "another")
    made.run("cosign", "signing-config", "create", "--out", folder / "log.json")
    made.known |= {"COSIGN_KEY": str(folder / "mine.key"), "COSIGN_SIGNING_CONFIG": str(folder / "log.json")}
    return made


@pytest.fixture(scope="module")
def said(releaser: Releaser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make release PUBLISH=1` said, on a base image of the registry, by its digest."""
    context = tmp_path_factory.mktemp("base")
    (context / "Dockerfile").write_text(BASE)
    base = f"{releaser.registry}/python"
    pushed = subprocess.run(
        [PROGRAM, "push-image", "--target", "base", "--to", f"docker://{base}:3.11", "--plain-http",
         "--context", context, "--file", context / "Dockerfile"],
        stdout=subprocess.PIPE, text=True, check=True, timeout=RELEASE_SECONDS,
    )  # fmt: skip
    return releaser.run(
        "make", "release", "PUBLISH=1", f"REGISTRY={releaser.registry}/team", "PLAIN_HTTP=1",
        "PLATFORMS=linux/amd64", f"BASE={base}@{pushed.stdout.strip()}",
    )  # fmt: skip


@pytest.mark.timeout(RELEASE_SECONDS)
def test_what_came_out_is_verified_by_the_lines_that_it_ends_with(releaser: Releaser, said: str) -> None:
    lines = _verifying(said)
    assert len(lines) == 7, lines  # of each image who signed it, its bill and where it comes from; the checksums
    keys = releaser.clone.parent
    for name, code in {"mine": 0, "another": 1}.items():
        (releaser.clone / "cosign.pub").write_bytes((keys / f"{name}.pub").read_bytes())
        for line in lines:
            releaser.line(line, code=code)


def test_its_tag_is_pushed_to_where_the_clone_is_from(releaser: Releaser, said: str) -> None:
    tag = f"v{versions.read(releaser.clone).project}"
    pushed = releaser.run("git", "ls-remote", "origin", f"refs/tags/{tag}").split()
    assert pushed == [releaser.run("git", "rev-parse", "HEAD").strip(), f"refs/tags/{tag}"]


def test_its_chart_and_values_name_the_images_that_the_registry_has(releaser: Releaser, said: str) -> None:
    version = versions.read(releaser.clone).project
    out = releaser.clone / "build" / "release" / version
    chart = f"oci://{releaser.registry}/team/charts/vectorindex-operator"
    shown = releaser.run(
        "helm", "template", "one", chart, "--version", version, "--plain-http", "--values", out / "images.yaml"
    )
    named = {document["repository"]: document["digest"] for document in _images(out / "images.yaml")}
    assert len(named) == 2
    for repository, digest in named.items():
        assert f"{repository}@{digest}" in shown
        host, _, name = repository.partition("/")
        request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{digest}", method="HEAD")
        request.add_header("Accept", "application/vnd.oci.image.index.v1+json")
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest


def test_a_file_that_was_changed_has_not_the_signed_checksum(releaser: Releaser, said: str) -> None:
    out = releaser.clone / "build" / "release" / versions.read(releaser.clone).project
    check = f"cd {out} && sha256sum --check --quiet SHA256SUMS"
    releaser.line(check)
    (wheel,) = out.glob("*.whl")
    whole = wheel.read_bytes()
    wheel.write_bytes(whole + b"\0")
    try:
        assert wheel.name in releaser.line(check, code=1)
    finally:
        wheel.write_bytes(whole)


def test_the_same_number_is_not_released_from_another_commit(releaser: Releaser, said: str) -> None:
    (releaser.clone / "README.md").write_text("another")
    try:
        refused = releaser.run("make", "release", "PUBLISH=1", f"REGISTRY={releaser.registry}/team", code=2)
    finally:
        releaser.run("git", "checkout", "-q", "README.md")
    assert "changes that are not committed" in refused
    assert "no base image by digest" in refused


def _verifying(said: str) -> list[str]:
    told = said.partition("whoever gets it verifies it by:\n")[2]
    return [line.strip() for line in re.findall(r"^  (?!#)(.+)$", told, re.MULTILINE)]


def _images(file: Path) -> list[dict[str, str]]:
    return list(yaml.safe_load(file.read_text()).values())
