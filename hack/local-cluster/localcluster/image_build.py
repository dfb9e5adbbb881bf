"""`build-image`: a Dockerfile to an image in containerd, doing nothing when nothing changed."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import archive, host, images, layout, registry
from .terminal import ClusterError, last_lines, output_of, run_logged, say

PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
HOST_CERTIFICATES = "/etc/ssl/certs"
LISTS = "vectorindex-push"


def build(target: str, tag: str, context: Path, dockerfile: Path) -> None:
    """Builds `target` of `dockerfile` over `context` and imports it as `tag`."""
    reference = normalised(tag)
    layout.ARCHIVES.mkdir(parents=True, exist_ok=True)
    record = record_of(reference)
    key = context_key(context, dockerfile, target, images.base_archive().name)
    known = _load(record)
    present = images.in_containerd().get(reference)
    if known.get("key") == key and present and known.get("digest") == present:
        record.touch()  # it is asked for again: second.needed
        say(f"{reference}: nothing changed")
        return
    image = _buildah_build(target, reference, context, dockerfile)
    if known.get("image") != image or not present or known.get("digest") != present:
        target_archive = layout.CACHE / "import.tar"
        target_archive.unlink(missing_ok=True)  # buildah refuses to overwrite a docker-archive
        push = _buildah("push", image, f"docker-archive:{target_archive}:{reference}")
        run_logged(f"exporting {reference}", "a few seconds", push, layout.LOGS / "push.log")
        images.import_archive(target_archive, reference)
        target_archive.unlink()
    digest = images.in_containerd().get(reference)
    record.write_text(json.dumps({"key": key, "image": image, "digest": digest}))
    say(f"{reference}: in the cluster")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an image goes, and how what is there is spoken to."""

    address: str
    """As buildah names it: `docker://HOST/NAME:TAG`, `oci:FOLDER:TAG`."""
    authfile: Path | None = None
    """A Docker configuration; None: buildah's own, else ~/.docker/config.json."""
    plain_http: bool = False

    def flags(self) -> list[str]:
        """Of buildah's verbs that speak to a registry."""
        known = ["--authfile", str(self.authfile)] if self.authfile else []
        return [*known, *(["--tls-verify=false"] if self.plain_http else [])]


def push(
    target: str, to: Destination, context: Path, dockerfile: Path, platforms: Sequence[str] = (), base: str = ""
) -> str:
    """Builds `target` for each of `platforms` (default: this machine's) and sends them as one image; its digest.

    `base`: what is built upon instead of the base image that this machine makes, pulled from a registry. The image's
    index is what the digest is of: a node takes of it what its platform needs.
    """
    host.ensure_packages()
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    several = f"localhost/{LISTS}/{target}:pushed"
    subprocess.run(_buildah("manifest", "rm", several), capture_output=True, check=False)  # of an earlier push
    output_of(_buildah("manifest", "create", several))
    for one in platforms or (this_platform(),):
        image = f"localhost/{LISTS}/{target}:{one.replace('/', '-')}"
        _buildah_build(target, image, context, dockerfile, _other_base(base, one, to))
        output_of(_buildah("manifest", "add", several, f"containers-storage:{image}"))
    said = layout.CACHE / "pushed.digest"
    said.unlink(missing_ok=True)
    words = _buildah("manifest", "push", "--all", "--digestfile", str(said), *to.flags(), several, to.address)
    log = layout.LOGS / "push.log"
    words = [*registry.reached_by(to.address), *words]
    run_logged(f"pushing {to.address}", "about 20 s", words, log, env=registry.trusted_by(to.address))
    digest = said.read_text().strip() if said.exists() else ""
    if not digest:  # buildah 1.28 ends well when a registry refuses
        raise ClusterError(
            f"{to.address} did not take it: a password that is missing or wrong? {log} says:\n{last_lines(log)}"
        )
    return digest


def this_platform() -> str:
    """As registries name it."""
    return f"linux/{archive.ARCHITECTURES.get(platform.machine(), platform.machine())}"


def _other_base(base: str, of: str, to: Destination) -> list[str]:
    """The flags of a build for a platform, on a base of somebody else's if there is one."""
    upon = ["--build-arg", f"PYTHON_IMAGE={base}", "--pull", *to.flags()] if base else ["--pull-never"]
    return ["--platform", of, *upon]


def record_of(reference: str) -> Path:
    """What is known of the image that was built under this name; as old as it was last asked for."""
    return layout.ARCHIVES / f"{reference.replace('/', '_').replace(':', '_')}.json"


def normalised(reference: str) -> str:
    """The full name a kubelet makes of an image reference: a registry and, on Docker's, `library/`; a tag."""
    path, separator, last = reference.rpartition("/")
    last, _, tag = last.partition(":")  # a colon further left is a registry's port
    name = f"{path}{separator}{last}"
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif first != "localhost" and "." not in first and ":" not in first:
        name = f"docker.io/{name}"
    if not tag or tag == "latest":
        raise ClusterError(f"give {reference!r} a tag other than latest: a kubelet always tries to pull latest")
    return f"{name}:{tag}"


def context_key(context: Path, dockerfile: Path, target: str, *more: str) -> str:
    """A digest of everything a build reads: the files git does not ignore, the Dockerfile, the target."""
    digest = hashlib.sha256("\0".join((target, *more)).encode())
    for path in sorted({*context_files(context), dockerfile}):
        digest.update(f"\0{os.path.relpath(path, context)}\0{path.lstat().st_mode:o}\0".encode())
        content = bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def context_files(context: Path) -> Iterable[Path]:
    """The context's files; without git, all of them."""
    listing = subprocess.run(
        ["git", "-C", str(context), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0:
        names = (os.fsdecode(name) for name in listing.stdout.split(b"\0") if name)
        paths: Iterable[Path] = (context / name for name in names)
    else:
        paths = context.rglob("*")
    return [path for path in paths if path.is_symlink() or path.is_file()]


def merged_pip_configuration(files: Iterable[Path], environment: Mapping[str, str]) -> str:
    """One pip.conf that says what the host's files and PIP_* variables say together; variables win, as in pip."""
    merged = configparser.RawConfigParser()
    merged.read(path for path in files if path.is_file())
    for name, value in sorted(environment.items()):
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            if not merged.has_section("global"):
                merged.add_section("global")
            merged.set("global", name.removeprefix("PIP_").lower().replace("_", "-"), value)
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in merged.items(section))
        for section in merged.sections()
    )


def host_paths_in(configuration: str) -> list[str]:
    """Absolute paths of this machine that a pip configuration names (wheels, certificates), if they exist."""
    words = {word.removeprefix("file://") for word in configuration.split()}
    return sorted(word for word in words if word.startswith("/") and word != "/" and Path(word).exists())


def _buildah_build(
    target: str, reference: str, context: Path, dockerfile: Path, flags: Sequence[str] = ("--pull-never",)
) -> str:
    """The image id that buildah made, its layers from the cache where nothing they read changed."""
    if "--pull-never" in flags:
        _ensure_base()
    command = _buildah(
        "bud", "--layers", *flags, "--isolation", "chroot", "--network", "host",
        *_volumes(), "--target", target, "--tag", reference, "--file", str(dockerfile), str(context),
    )  # fmt: skip
    log = layout.LOGS / "build-image.log"
    run_logged(f"building {reference}", "first time about 2 min, then seconds", command, log)
    return output_of(_buildah("images", "--no-trunc", "--quiet", reference)).split()[0]


def _ensure_base() -> None:
    """The base image in buildah's own storage, so that FROM finds it without a registry."""
    images.ensure_archives(images.NAMES["base"])
    marker = layout.BUILDAH / images.base_archive().name
    if not marker.exists():
        pull = _buildah("pull", f"docker-archive:{images.base_archive()}")
        run_logged("giving the base image to buildah", "about 5 s", pull, layout.LOGS / "base.log")
        marker.touch()


def _buildah(*arguments: str) -> list[str]:
    # In a mount namespace of its own: the layers it mounts are nothing for the host to see or to clean up.
    storage = ["--root", str(layout.BUILDAH / "root"), "--runroot", str(layout.BUILDAH / "run")]
    return ["unshare", "--mount", "buildah", *storage, "--storage-driver", "overlay", *arguments]


def _volumes() -> list[str]:
    """What lets pip inside a build reach what pip on this machine reaches; nothing of it stays in the image."""
    files = [Path(name).expanduser() for name in (*PIP_FILES, os.environ.get("PIP_CONFIG_FILE") or os.devnull)]
    text = merged_pip_configuration(files, os.environ)
    configuration = layout.CACHE / "pip.conf"
    configuration.write_text(text)
    paths = [path for path in host_paths_in(text) if not path.startswith(HOST_CERTIFICATES)]
    if Path(HOST_CERTIFICATES).is_dir():
        paths.append(HOST_CERTIFICATES)
    mounts = [f"{path}:{path}:ro" for path in paths] + [f"{configuration}:/etc/pip.conf:ro"]
    return [argument for mount in mounts for argument in ("--volume", mount)]


def _load(record: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return known
