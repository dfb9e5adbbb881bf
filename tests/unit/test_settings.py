"""Settings from flags and environment: what the chart sets is checked like what a person types."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest

from vectorindex_operator.settings import OperatorSettings, add_flags, from_flags

NAMES = ("SEARCHER_IMAGE", "GPU_IMAGE", "IMAGE_PULL_POLICY", "IMAGE_PULL_SECRETS", "WATCH_NAMESPACES", "HTTP_PORT",
         "LOG_LEVEL")  # fmt: skip


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*(f"VECTORINDEX_{n}" for n in NAMES), "POD_NAMESPACE", "POD_NAME"):
        monkeypatch.delenv(name, raising=False)


def settings(*arguments: str) -> OperatorSettings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return from_flags(parser.parse_args(arguments))


def test_the_defaults() -> None:
    found = settings("--searcher-image=example/searcher:v1")
    assert found.installation.searcher_image == "example/searcher:v1"
    assert (found.installation.gpu_image, found.installation.image_pull_policy) == ("", "IfNotPresent")
    assert (found.installation.image_pull_secrets, found.watch_namespaces) == ((), ())
    assert (found.namespace, found.identity) == ("default", socket.gethostname())
    assert (found.http_port, found.log_level, found.workers) == (8080, "INFO", 4)


def test_the_environment_of_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "VECTORINDEX_SEARCHER_IMAGE": "example/searcher:v1",
        "VECTORINDEX_GPU_IMAGE": "example/gpu:v1",
        "VECTORINDEX_IMAGE_PULL_POLICY": "Always",
        "VECTORINDEX_IMAGE_PULL_SECRETS": "registry, mirror,",
        "VECTORINDEX_WATCH_NAMESPACES": "team-a,team-b",
        "VECTORINDEX_HTTP_PORT": "9000",
        "VECTORINDEX_LOG_LEVEL": "debug",
        "POD_NAMESPACE": "vectorindex-system",
        "POD_NAME": "operator-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = settings()
    assert (found.installation.gpu_image, found.installation.image_pull_policy) == ("example/gpu:v1", "Always")
    assert found.installation.image_pull_secrets == ("registry", "mirror")
    assert found.watch_namespaces == ("team-a", "team-b")
    assert (found.namespace, found.identity) == ("vectorindex-system", "operator-1")
    assert (found.http_port, found.log_level) == (9000, "DEBUG")
    assert settings("--http-port=1", "--log-level=ERROR").http_port == 1  # a flag beats its variable


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("VECTORINDEX_SEARCHER_IMAGE", "", "--searcher-image is empty"),
        ("VECTORINDEX_IMAGE_PULL_POLICY", "always", "VECTORINDEX_IMAGE_PULL_POLICY"),
        ("VECTORINDEX_LOG_LEVEL", "verbose", "VECTORINDEX_LOG_LEVEL"),
        ("VECTORINDEX_HTTP_PORT", "http", "VECTORINDEX_HTTP_PORT"),
        ("VECTORINDEX_HTTP_PORT", "70000", "VECTORINDEX_HTTP_PORT"),
    ],
)
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv("VECTORINDEX_SEARCHER_IMAGE", "example/searcher:v1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says):
        settings()


def test_an_operator_without_workers_would_do_nothing_and_say_nothing() -> None:
    with pytest.raises(ValueError, match="--workers is 0"):
        settings("--searcher-image=x", "--workers=0")


def test_every_variable_of_the_chart_is_known() -> None:
    chart = Path(__file__).resolve().parents[2] / "charts" / "vectorindex-operator" / "templates"
    text = "".join(path.read_text() for path in chart.rglob("*.yaml"))
    known = {f"VECTORINDEX_{name}" for name in NAMES}
    used = {word.strip('"') for word in text.replace(":", " ").split() if word.strip('"').startswith("VECTORINDEX_")}
    assert used <= known
    assert "VECTORINDEX_SEARCHER_IMAGE" in used
