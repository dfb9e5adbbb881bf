"""Which cluster is chosen, and what an image's tag depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cluster, images
from harness.errors import HarnessError


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
