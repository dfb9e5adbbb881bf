"""A release: numbers that agree, wheels for every platform, bills of what is in an image, and what is signed."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

from harness.base import CHECKOUT
from harness.errors import HarnessError
from releasing import files, images, publish, sbom, versions
from releasing.__main__ import main
from releasing.images import Registry

DIGEST = "sha256:" + "5" * 64
HERE = Registry("registry.example.com/team")
KEY = publish.Signer("cosign.key")


# ---------------------------------------------------------------- numbers


def test_the_versions_of_this_checkout_agree() -> None:
    assert versions.read(CHECKOUT).disagreements() == []


def test_a_version_that_differs_is_named() -> None:
    found = versions.Versions(project="1.2.0", lock="1.1.0", chart="1.2.0", app="", notes="1.2.0")
    assert found.disagreements() == [
        "uv.lock says 1.1.0, pyproject.toml 1.2.0",
        "Chart.yaml appVersion says nothing, pyproject.toml 1.2.0",
    ]


@pytest.mark.parametrize(
    ("changelog", "newest", "pending"),
    [
        ("# Changelog\n\n## Unreleased\n\n- one\n", "", True),
        ("# Changelog\n\n## Unreleased\n\n## 1.2.0 (2026-11-28)\n\n- one\n\n## 1.1.0\n", "1.2.0", False),
        ("# Changelog\n\n## [1.3.0-rc.1]\n\n- one\n", "1.3.0-rc.1", False),
    ],
)
def test_notes_are_of_the_newest_heading(changelog: str, newest: str, pending: bool) -> None:
    assert versions.newest_notes(changelog) == newest
    assert versions.unreleased(changelog) == pending


def test_what_is_not_ready_is_said_with_what_mends_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, check=True)

    notes = tmp_path / "CHANGELOG.md"
    notes.write_text("## Unreleased\n\n- one\n")
    git("init", "--quiet")
    found = versions.Versions("1.2.0", "1.2.0", "1.2.0", "1.2.0", versions.newest_notes(notes.read_text()))
    assert [line[:13] for line in versions.unpublishable(tmp_path, found)] == [
        "CHANGELOG.md ",
        "the tree has ",
        "no tag v1.2.0",
    ]

    notes.write_text("## Unreleased\n\n## 1.2.0 (2026-11-28)\n\n- one\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    git("tag", "v1.2.0")
    found = versions.Versions("1.2.0", "1.2.0", "1.2.0", "1.2.0", versions.newest_notes(notes.read_text()))
    assert versions.unpublishable(tmp_path, found) == []


def test_nothing_is_published_that_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is built."""
    assert main(["release", "--publish", "--uv", "/nowhere"]) == 1
    said = capsys.readouterr().err
    assert "not to be published" in said
    assert "no base image by digest" in said
    assert "no registry" in said


# ---------------------------------------------------------------- platforms


def environment(machine: str) -> dict[str, str]:
    return {
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine, "os_name": "posix",
        "python_version": "3.11", "python_full_version": "3.11.9", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "extra": "",
    }  # fmt: skip


@cache
def lock() -> list[dict[str, Any]]:
    return list(tomllib.loads((CHECKOUT / "uv.lock").read_text())["package"])


def without_extras(marker: str, chosen: str) -> str:
    """What of a marker is about the platform; uv asks there for our extras, too, where two cannot be together."""
    yes, no = "python_version >= '3'", "python_version < '3'"

    def about(found: re.Match[str]) -> str:
        is_chosen = found[2].endswith((f"-{chosen}", "-dataplane"))
        return yes if is_chosen == (found[1] == "==") else no

    return re.sub(r"extra (==|!=) '([^']+)'", about, marker)


def locked(extra: str, machine: str) -> Iterator[dict[str, Any]]:
    """Packages that an extra brings on a platform, as uv.lock has them: some in two versions, for two Pythons."""
    seen: set[tuple[str, str, str]] = set()
    todo = [("vectorindex-operator", "", ""), ("vectorindex-operator", "", extra)]
    while todo:
        if (one := todo.pop()) in seen:
            continue
        seen.add(one)
        name, version, part = one
        package = next(row for row in lock() if row["name"] == name and version in ("", row["version"]))
        if not part and name != "vectorindex-operator":
            yield package
        wanted = package.get("optional-dependencies", {}).get(part, []) if part else package.get("dependencies", [])
        for row in wanted:
            marker = without_extras(row.get("marker", ""), extra)
            if not marker or Marker(marker).evaluate(environment(machine)):
                todo += [(row["name"], row.get("version", ""), more) for more in ("", *row.get("extra", []))]


def runs_on(wheel: str, machine: str) -> bool:
    """Whether a wheel is for Python 3.11 on this kind of machine under glibc."""
    _, _, _, tags = parse_wheel_filename(wheel)
    return any(
        (one.platform == "any" or (one.platform.startswith("manylinux") and one.platform.endswith(machine)))
        and (one.interpreter in ("py3", "py2.py3", "cp311") or one.abi == "abi3")
        for one in tags
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("extra", ["operator", "searcher"])
def test_the_lock_has_wheels_for_every_platform(extra: str, machine: str) -> None:
    """The image's build compiles nothing: it has no compiler."""
    packages = list(locked(extra, machine))
    assert len(packages) > 8
    for package in packages:
        names = [wheel["url"].rpartition("/")[2] for wheel in package["wheels"]]
        assert any(runs_on(name, machine) for name in names), package["name"]


def test_another_platform_is_built_where_an_emulator_is(tmp_path: Path) -> None:
    assert images.buildable("linux/arm64", "aarch64", tmp_path)
    assert not images.buildable("linux/arm64", "x86_64", tmp_path)
    (tmp_path / "qemu-aarch64").touch()
    assert images.buildable("linux/arm64", "x86_64", tmp_path)


# ---------------------------------------------------------------- what is in an image


def add(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout: an index of one image, whose second layer has a newer list of packages."""
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name, version in {"1": "1.0", "2": "1.1+b1"}.items():
        with tarfile.open(blobs / name, "w:gz") as tar:
            add(tar, "./usr/lib/os-release", 'NAME="Debian"\nVERSION_ID="12"\n')
            removed = "Package: old\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all"
            there = f"Package: libc6\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n"
            add(tar, "./var/lib/dpkg/status", f"{there}Description: a\n more: words\n\n{removed}\n")
    (blobs / "3").write_text(json.dumps({"layers": [{"digest": "sha256:1"}, {"digest": "sha256:2"}]}))
    (blobs / "4").write_text(json.dumps({"manifests": [{"digest": "sha256:3"}]}))
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:4"}]}))
    return tmp_path


def test_a_bill_has_pythons_packages_and_debians(layout: Path, tmp_path: Path) -> None:
    told = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "dependencies": [],
        "metadata": {"component": {"bom-ref": "us@1", "name": "vectorindex-operator"}},
        "components": [{"name": "kopf", "bom-ref": "kopf@1", "externalReferences": ["where"]}],
    }  # fmt: skip
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    uv.chmod(0o755)

    bill = sbom.of_image(str(uv), "operator", layout, "vectorindex-operator", "1.2.0", DIGEST)
    names = [one["name"] for one in bill["components"]]
    assert names == ["vectorindex-operator", "kopf", "libc6"]
    assert "externalReferences" not in bill["components"][1]
    libc = bill["components"][2]
    assert libc["purl"] == "pkg:deb/debian/libc6@1.1%2Bb1?arch=amd64&distro=debian-12"
    about = bill["metadata"]["component"]
    assert about["purl"] == f"pkg:oci/vectorindex-operator@{DIGEST.replace(':', '%3A')}"
    assert bill["dependencies"][-1] == {"ref": about["bom-ref"], "dependsOn": ["us@1", libc["bom-ref"]]}


def test_an_image_that_cannot_be_told_of_is_no_release(layout: Path) -> None:
    (layout / "blobs" / "sha256" / "3").write_text(json.dumps({"layers": []}))
    with pytest.raises(HarnessError, match="nothing tells what is in it"):
        sbom.debian_components(layout)


# ---------------------------------------------------------------- files, and what goes out


def test_checksums_are_as_sha256sum_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_text("a")
    (tmp_path / "images").mkdir()
    files.write_sums(tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", files.SUMS], cwd=tmp_path, check=True, capture_output=True)
    assert list(files.sums(tmp_path)) == ["a.whl"]


def test_where_it_comes_from_names_the_base_image() -> None:
    made = files.provenance(f"python@{DIGEST}")["buildDefinition"]
    assert made["resolvedDependencies"][-1] == {"uri": "pkg:docker/python", "digest": {"sha256": "5" * 64}}
    assert "stand-in" in files.provenance("")["buildDefinition"]["externalParameters"]["base"]


def test_values_of_the_chart_name_digests() -> None:
    digests = {"operator": DIGEST, "searcher": DIGEST.replace("5", "6")}
    made = yaml.safe_load(images.values(HERE.prefix, digests))
    assert made == {
        "image": {"repository": "registry.example.com/team/vectorindex-operator", "digest": digests["operator"]},
        "searcherImage": {
            "repository": "registry.example.com/team/vectorindex-searcher",
            "digest": digests["searcher"],
        },
    }
    assert images.variables(HERE.prefix, digests).endswith(f"SEARCHER_DIGEST={digests['searcher']}")


def test_digests_are_signed_and_never_tags() -> None:
    digests = dict.fromkeys(images.TARGETS, DIGEST)
    steps = publish.steps(HERE, "1.2.0", Path("out"), digests, Path("out/chart.tgz"), signer=KEY)
    signing = [step.command for step in steps if step.command[0] == "cosign"]
    assert len(signing) == 3 * len(images.TARGETS) + 1
    assert all("--key" in command for command in signing)
    about = [command[-1] for command in signing[:-1]]
    assert all(one.endswith(f"@{DIGEST}") for one in about)
    assert steps[-1].command == ("git", "push", "origin", "v1.2.0")
    assert all("--key" not in step.command for step in publish.steps(HERE, "1", Path("o"), digests, Path("c")))


def test_each_signature_is_looked_at_by_a_command_that_is_told() -> None:
    digests, offline = dict.fromkeys(images.TARGETS, DIGEST), publish.Signer("cosign.key", "config.json")
    signing = [step.command for step in publish.steps(HERE, "1", Path("o"), digests, Path("c"), signer=offline)]
    assert all("--signing-config" in command for command in signing if command[0] == "cosign")
    looking = [step.command for step in publish.checks(HERE, Path("o"), digests, offline.looked_at())]
    pairs = {"sign": "verify", "attest": "verify-attestation", "sign-blob": "verify-blob"}

    def about(commands: list[tuple[str, ...]]) -> list[tuple[str, str]]:
        """What is done, with which type, to what."""
        kinds = [command[command.index("--type") + 1] if "--type" in command else "" for command in commands]
        return [(kind, command[-1]) for kind, command in zip(kinds, commands, strict=True)]

    signed = [command for command in signing if command[0] == "cosign"]
    assert [pairs[command[1]] for command in signed] == [command[1] for command in looking]
    assert about(signed) == about(looking)
    assert all("--insecure-ignore-tlog=true" in command for command in looking)
    assert KEY.looked_at() == ("--key", "cosign.pub")
    assert publish.Signer().looked_at()[0] == "--certificate-identity"


def test_cosign_is_told_the_password_in_a_folder_of_its_own(tmp_path: Path) -> None:
    password = tmp_path / "auth.json"
    password.write_text("{}")
    with publish.logged_in(Registry("registry.example.com", password)) as told:
        assert Path(told["DOCKER_CONFIG"], "config.json").read_text() == "{}"
    assert not Path(told["DOCKER_CONFIG"]).exists()
    with publish.logged_in(HERE) as told:
        assert told == {}


def test_a_push_that_gives_no_digest_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    done: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], 0, stdout="pushed\n")
    monkeypatch.setattr(images.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(HarnessError, match="did not get to oci:x"):
        images.build("operator", "oci:x", ["linux/amd64"])
