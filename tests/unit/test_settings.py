"""Settings from flags and environment: what the chart sets is checked like what a person types."""

from __future__ import annotations

import argparse
import json
import socket
from pathlib import Path

import pytest
import yaml

from vectorindex_operator.adapters.prometheus import Server
from vectorindex_operator.adapters.webhook import Receiver
from vectorindex_operator.core.state import Installation, TrustBundle
from vectorindex_operator.settings import FLAGS, NUMBERS, Number, OperatorSettings, add_flags, from_flags

KNOWN = (*FLAGS, *(number.as_flag() for number in NUMBERS))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in KNOWN:
        monkeypatch.delenv(one.variable, raising=False)


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
    bare = Installation("x")
    assert (found.installation.soak_look_seconds, found.installation.watch_look_seconds) == (
        bare.soak_look_seconds, bare.watch_look_seconds,
    )  # fmt: skip
    assert (found.http_port, found.log_level) == (8080, "INFO")
    assert {n.name: getattr(found.tuning, n.name.replace("-", "_")) for n in NUMBERS} == {
        n.name: n.default for n in NUMBERS
    }


def test_the_environment_of_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "VECTORINDEX_SEARCHER_IMAGE": "example/searcher:v1",
        "VECTORINDEX_GPU_IMAGE": "example/gpu:v1",
        "VECTORINDEX_IMAGE_PULL_POLICY": "Always",
        "VECTORINDEX_IMAGE_PULL_SECRETS": "registry, mirror,",
        "VECTORINDEX_FIXED_USER": "false",
        "VECTORINDEX_HTTPS_PROXY": "http://proxy:3128",
        "VECTORINDEX_NO_PROXY": ".svc",
        "VECTORINDEX_TRUST_BUNDLE": "house-ca/ca.crt",
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
    assert not found.installation.fixed_user
    assert found.installation.proxies == {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".svc"}
    assert found.installation.trust_bundle == TrustBundle("house-ca", "ca.crt")
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
        ("VECTORINDEX_CLUSTER_UID", "a/b", "clusterUid"),
        ("VECTORINDEX_COLLECT_HISTORY", "yes", "VECTORINDEX_COLLECT_HISTORY"),
        ("VECTORINDEX_COLLECT_HISTORY", "true", "--cluster-uid"),
        ("VECTORINDEX_PROMETHEUS_URL", "prometheus:9090", "prometheus.url"),
        ("VECTORINDEX_PROMETHEUS_URL", "ftp://prometheus", "prometheus.url"),
        ("VECTORINDEX_PROMETHEUS_URL", "http://", "prometheus.url"),
        ("VECTORINDEX_PROMETHEUS_URL", "http://me:secret@prometheus", "prometheus.secretName"),
        ("VECTORINDEX_PROMETHEUS_URL", "http://prometheus:99999", "prometheus.url"),
        ("VECTORINDEX_TRUST_BUNDLE", "house-ca", "write NAME/KEY"),
        ("VECTORINDEX_TRUST_BUNDLE", "House/ca.crt", "write NAME/KEY"),
        ("VECTORINDEX_FIXED_USER", "no", "VECTORINDEX_FIXED_USER"),
        ("VECTORINDEX_OPERATOR_CLASS", "", "VECTORINDEX_OPERATOR_CLASS"),
        ("VECTORINDEX_OPERATOR_CLASS", "Next", "VECTORINDEX_OPERATOR_CLASS"),
        ("VECTORINDEX_OPERATOR_CLASS", "n" * 33, "VECTORINDEX_OPERATOR_CLASS"),
    ],
)
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv("VECTORINDEX_SEARCHER_IMAGE", "example/searcher:v1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says):
        settings()


def test_where_prometheus_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings("--searcher-image=x").prometheus is None
    url = "https://proxy:8080/base?namespace={namespace}"
    found = settings("--searcher-image=x", f"--prometheus-url={url}", "--prometheus-tenant-header=X-Scope-OrgID")
    assert found.prometheus == Server(url, "X-Scope-OrgID")
    with pytest.raises(ValueError, match="tenantHeader"):
        settings("--searcher-image=x", f"--prometheus-url={url}", "--prometheus-tenant-header=X Y: z")
    monkeypatch.setenv("VECTORINDEX_PROMETHEUS_URL", "http://me:secret@prometheus")
    with pytest.raises(ValueError, match=r"prometheus\.url") as refused:
        settings("--searcher-image=x")
    assert "secret@" not in str(refused.value)


def test_who_is_told(tmp_path: Path) -> None:
    bare = settings("--searcher-image=x")
    assert (bare.receiver, bare.installation.notifies) == (None, False)
    with pytest.raises(ValueError, match=r"webhook\.url"):
        settings("--searcher-image=x", "--webhook-url=hooks.example.com")
    (tmp_path / "key").write_text("whsec_c2VjcmV0\n")
    flags = ("--searcher-image=x", "--webhook-url=https://hooks.example.com/x", f"--webhook-secret-dir={tmp_path}")
    found = settings(*flags, "--cluster-uid=c1")
    assert found.installation.notifies
    assert found.receiver == Receiver("https://hooks.example.com/x", str(tmp_path), "c1")
    (tmp_path / "key").write_text("no-base64-!!")
    with pytest.raises(ValueError, match="openssl rand") as refused:
        settings(*flags)
    assert "no-base64" not in str(refused.value)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_number_out_of_its_bounds_is_refused_by_name(number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator without workers, say, would do nothing and say nothing."""
    found = settings("--searcher-image=x", f"{number.as_flag().flag}={number.most}")
    assert getattr(found.tuning, number.name.replace("-", "_")) == number.most
    for text in (number.least - 1, number.most + 1, "", "many", "4.5", "-4", "9" * 5000):
        with pytest.raises(ValueError, match=rf"^{number.as_flag().flag} is .*{number.least} to {number.most}"):
            settings("--searcher-image=x", f"{number.as_flag().flag}={text}")
    monkeypatch.setenv(number.as_flag().variable, str(number.least))
    assert getattr(settings("--searcher-image=x").tuning, number.name.replace("-", "_")) == number.least


def chart_text() -> str:
    chart = Path(__file__).resolve().parents[2] / "charts" / "vectorindex-operator" / "templates"
    return "".join(path.read_text() for path in chart.rglob("*.yaml"))


def test_every_number_is_a_value_of_the_chart() -> None:
    """The chart's values have the same defaults and bounds."""
    chart = Path(__file__).resolve().parents[2] / "charts" / "vectorindex-operator"
    values = yaml.safe_load((chart / "values.yaml").read_text())["tuning"]
    schema = json.loads((chart / "values.schema.json").read_text())["properties"]["tuning"]["properties"]
    for number in NUMBERS:
        first, *others = number.name.split("-")
        value = first + "".join(word.capitalize() for word in others)
        assert values.pop(value) == number.default
        found = schema.pop(value)
        assert (found["type"], found["minimum"], found["maximum"]) == ("integer", number.least, number.most)
        assert (
            f"name: {number.as_flag().variable}\n              value: {{{{ .Values.tuning.{value} | quote }}}}"
            in chart_text()
        )
    assert (values, schema) == ({}, {})


def test_every_variable_of_the_chart_is_known() -> None:
    text = chart_text()
    known = {one.variable for one in KNOWN}
    used = {word.strip('"') for word in text.replace(":", " ").split() if word.strip('"').startswith("VECTORINDEX_")}
    assert used <= known
    assert "VECTORINDEX_SEARCHER_IMAGE" in used


# ---------------------------------------------------------------- network policies


def test_who_is_let_in_by_managed_policies_comes_from_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "vectorindex-system")
    monkeypatch.setenv("VECTORINDEX_OPERATOR_LABELS", "app.kubernetes.io/name=operator, team=")
    monkeypatch.setenv("VECTORINDEX_METRICS_FROM", '[{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]')
    found = settings("--searcher-image=x").installation
    assert (found.namespace, found.labels) == (
        "vectorindex-system", {"app.kubernetes.io/name": "operator", "team": ""},
    )  # fmt: skip
    assert found.metrics_from == ({"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}})


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--operator-labels", "name"),
        ("--operator-labels", "=value"),
        ("--metrics-from", "everyone"),
        ("--metrics-from", "{}"),
        ("--metrics-from", "[{}]"),
        ("--metrics-from", '[{"from": {}}]'),
        ("--metrics-from", '[{"podSelector": null}]'),
        ("--metrics-from", "[" * 100_000),
    ],
)
def test_what_is_no_peer_or_label_ends_the_start(flag: str, value: str) -> None:
    with pytest.raises(ValueError, match=flag) as caught:
        settings("--searcher-image=x", f"{flag}={value}")
    assert len(str(caught.value)) < 600


# ---------------------------------------------------------------- master keys

KEY, OLDER = "k" * 64, "o" * 32


def test_the_master_keys_come_from_a_mounted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("VECTORINDEX_INTERNAL_KEY_DIR", str(tmp_path))
    found = settings("--searcher-image=x").installation.internal_keys
    assert (found.current, found.previous) == (KEY, "")
    (tmp_path / "previous").write_text(OLDER)
    found = settings("--searcher-image=x").installation.internal_keys
    assert (found.current, found.previous) == (KEY, OLDER)
    assert settings("--searcher-image=x", "--internal-key-dir=").installation.internal_keys.current == ""


@pytest.mark.parametrize("text", [None, "", "short-" + "s" * 25, "ü" * 40, " \n" * 40])
@pytest.mark.parametrize("name", ["key", "previous"])
def test_a_master_key_that_anybody_could_guess_ends_the_start(tmp_path: Path, name: str, text: str | None) -> None:
    (tmp_path / "key").write_text(KEY)
    if text is None:
        if name == "previous":
            return  # that one may be missing
        (tmp_path / "key").unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="--internal-key-dir") as caught:
        settings("--searcher-image=x", f"--internal-key-dir={tmp_path}")
    assert str(tmp_path / name) in str(caught.value)
    assert "openssl rand" in str(caught.value)
    assert not text or text.strip() == "" or text not in str(caught.value)


def test_a_master_key_shows_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "previous").write_text(OLDER)
    found = settings("--searcher-image=x", f"--internal-key-dir={tmp_path}")
    assert found.installation.internal_keys.current == KEY
    assert KEY not in repr(found)
    assert OLDER not in repr(found)
