"""Which cluster is chosen, and what an image's tag depends on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cluster, images, past
from harness.base import CHECKOUT, Image
from harness.errors import HarnessError, LackingError
from harness.external_cluster import CurrentCluster, OtherCluster
from harness.waiting import wait_for


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Linux as root without Docker, and a kubeconfig that nobody mentioned."""
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/home/somebody/.kube/config")
    for name, value in {"_linux": True, "_root": True, "docker_runs": False}.items():
        monkeypatch.setattr(cluster, name, lambda value=value: value)
    monkeypatch.setattr(cluster, "_has", lambda program: True)
    monkeypatch.setattr(cluster, "KINDS", {name: lambda name=name: name for name in ("local", "kind", "current")})
    return monkeypatch


def test_local_where_it_can_run(machine: pytest.MonkeyPatch) -> None:
    assert cluster.choose() == "local"


def test_kind_where_docker_runs(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(cluster, "docker_runs", lambda: True)

    assert cluster.choose() == "kind"


def test_the_users_cluster_only_when_told(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(cluster, "_root", lambda: False)
    with pytest.raises(HarnessError, match=r"needs root(.|\n)*a running Docker engine(.|\n)*CLUSTER=current"):
        cluster.choose()

    machine.setenv("CLUSTER", "current")
    assert cluster.choose() == "current"


def test_refuses_an_unknown_kind(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("CLUSTER", "minikube")

    with pytest.raises(HarnessError, match="minikube is not known; use one of local, kind, current"):
        cluster.choose()


def test_the_tag_follows_what_goes_into_the_image(tmp_path: Path) -> None:
    (tmp_path / "operator").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "operator" / "main.py").write_text("1")
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    first = images.content_tag(tmp_path)

    (tmp_path / "docs" / "page.md").write_text("elsewhere")
    assert images.content_tag(tmp_path) == first

    (tmp_path / "operator" / "main.py").write_text("2")
    assert images.content_tag(tmp_path) != first


def test_the_tag_follows_all_that_a_build_may_read() -> None:
    """What is let in and not looked at would leave an image as it was."""
    let_in = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert set(images.INPUTS) == {"Dockerfile", ".dockerignore", *let_in}


class Forwarding(OtherCluster):
    """Whatever kubectl is asked, a shell script answers."""

    def __init__(self, folder: Path, script: str) -> None:
        program = folder / "kubectl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.kubectl_program, self.kubeconfig = str(program), folder / "kubeconfig"

    def up(self) -> None: ...

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        raise NotImplementedError


@pytest.fixture
def forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """The port of a port-forward that is this script."""
    monkeypatch.setattr("harness.external_cluster.atexit.register", lambda *_: None)
    return lambda script: Forwarding(tmp_path, script)._forward("ns", "service/s3", "9000")


def test_a_port_forward_goes_on_however_much_it_says(forwarding: Callable[[str], int], tmp_path: Path) -> None:
    """kubectl says a line for each connection; a pipe holds a thousand of them."""
    script = "echo 'Forwarding from 127.0.0.1:4321 -> 9000'; yes Handling connection for 4321 | head -n 20000"

    assert forwarding(f"{script}; : > {tmp_path / 'all-said'}") == 4321
    wait_for((tmp_path / "all-said").exists, 60, "it to have said all", every=0.01)


def test_a_port_forward_that_ends_says_why(forwarding: Callable[[str], int]) -> None:
    with pytest.raises(HarnessError, match=r"port-forward to ns/service/s3 ended: error: no such service"):
        forwarding("(sleep 0.3; echo error: no such service >&2) & exit 1")


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository with one commit, and that commit."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    (tmp_path / "Dockerfile").write_text("FROM something else")
    return tmp_path, git("rev-parse", "HEAD")


def test_the_files_of_a_commit_are_those_of_then(repository: tuple[Path, str]) -> None:
    folder, commit = repository

    with past.checkout(commit, folder) as files:
        assert (files / "Dockerfile").read_text() == "FROM scratch"
    assert not files.exists()


def test_a_commit_that_a_shallow_clone_lacks_is_named(repository: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = repository
    missing = commit[::-1]
    lacks = pytest.raises(LackingError, match=rf"no commit {missing}(.|\n)*git fetch --unshallow")

    with lacks, past.checkout(missing, folder):
        pass


def test_a_past_release_is_built_from_its_own_files(repository: tuple[Path, str], tmp_path: Path) -> None:
    """Not from this checkout's: the upgrade would be from a release to itself."""
    folder, commit = repository
    read = []

    class Reads(Forwarding):
        def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
            read.append((checkout / "Dockerfile").read_text())
            return Image(target, tag)

    with past.checkout(commit, folder) as files:
        built = images.build(Reads(tmp_path, ""), files, tag="at-1")
    assert (built.operator.reference, built.searcher.reference) == ("operator:at-1", "searcher:at-1")
    assert read == ["FROM scratch", "FROM scratch"]


def test_a_registrys_tag_is_of_this_checkout_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    current = object.__new__(CurrentCluster)
    monkeypatch.setenv("IMAGE_REPOSITORY", "registry/vectorindex-operator")
    monkeypatch.setenv("IMAGE_TAG", "now")
    monkeypatch.delenv("PAST_IMAGE_TAG", raising=False)
    assert current.provide_image("searcher", "dev-1").reference == "registry/vectorindex-searcher:now"
    with pytest.raises(LackingError, match="PAST_IMAGE_TAG"):
        current.provide_image("searcher", "at-1", tmp_path)

    monkeypatch.setenv("PAST_IMAGE_TAG", "then")
    assert current.provide_image("searcher", "at-1", tmp_path).reference == "registry/vectorindex-searcher:then"
