"""Images in the node's containerd: the three the cluster brings itself, and importing any other."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from . import archive, builds, layout, node
from .terminal import output_of, run_logged

NAMES = layout.VERSIONS["images"]
# What a container needs neither to run nor to `apt-get install`.
NOT_NEEDED = ("var/cache/apt/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*",
              "usr/share/locale/*", "usr/share/info/*", "var/log/*.log")  # fmt: skip


def own_archives() -> dict[str, Path]:
    """reference: archive of the images the cluster brings. The file name changes when its content should."""
    revision = NAMES["revision"]
    suite = layout.VERSIONS["debian"]["suite"]
    return {
        NAMES["pause"]: layout.ARCHIVES / f"pause-{revision}.tar",
        NAMES["object_store"]: layout.ARCHIVES / f"{layout.binary('versitygw').name}-{revision}.tar",
        NAMES["base"]: base_archive(suite, revision),
    }


def base_archive(suite: str = layout.VERSIONS["debian"]["suite"], revision: str = NAMES["revision"]) -> Path:
    """Where the base image lies, as a docker-archive."""
    return layout.ARCHIVES / f"base-{suite}-{revision}.tar"


def ensure_archives(*wanted: str) -> None:
    """Makes the archives that the cache lacks: of these references, or of all."""
    makers = {NAMES["pause"]: _make_pause, NAMES["object_store"]: _make_object_store, NAMES["base"]: _make_base}
    layout.ARCHIVES.mkdir(parents=True, exist_ok=True)
    for reference, target in own_archives().items():
        if not target.exists() and (not wanted or reference in wanted):
            makers[reference](reference, target)


def ensure_imported() -> None:
    """Imports the cluster's own images that containerd lacks."""
    present = in_containerd()
    for reference, target in own_archives().items():
        if reference not in present:
            import_archive(target, reference)


def in_containerd() -> dict[str, str]:
    """name: digest of every image that pods can use; digests listed as names are left out."""
    rows = [line.split() for line in output_of(_ctr("images", "list")).splitlines()[1:]]
    return {row[0]: next(field for field in row if field.startswith("sha256:")) for row in rows if "@" not in row[0]
            and not row[0].startswith("sha256:")}  # fmt: skip


def import_archive(path: Path, reference: str) -> None:
    """Puts a docker-archive into containerd, where pods find it under `reference`."""
    log = layout.LOGS / "import.log"
    run_logged(f"importing {reference}", "a few seconds", _ctr("images", "import", str(path)), log)


def _ctr(*arguments: str) -> list[str]:
    command = node.inside("ctr", "--address", layout.CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments)
    return [str(part) for part in command]


def _make_pause(reference: str, target: Path) -> None:
    _single_binary(reference, target, builds.pause(), "pause", ())


def _make_object_store(reference: str, target: Path) -> None:
    _single_binary(reference, target, layout.binary("versitygw"), "versitygw", ("data", "tmp"))


def _single_binary(reference: str, target: Path, binary: Path, name: str, folders: tuple[str, ...]) -> None:
    layer = target.with_suffix(".layer")
    archive.single_binary_layer(layer, binary, name, folders)
    archive.write(target, reference, layer, {"Entrypoint": [f"/{name}"], "User": "1000:1000"})
    layer.unlink()


def _make_base(reference: str, target: Path) -> None:
    """Debian with Python, shaped like Docker's official python image: `python` and a `pip` that may install."""
    debian = layout.VERSIONS["debian"]
    with tempfile.TemporaryDirectory(dir=layout.CACHE, prefix="base-") as folder:
        root = Path(folder, "root")
        # In a mount namespace of its own: debootstrap mounts /proc, and the host is not to see it.
        run_logged(
            f"making the base image {reference}",
            "about 1 min, once",
            ["unshare", "--mount", "debootstrap", "--variant=minbase",
             f"--include={','.join(debian['base_packages'])}", debian["suite"], root],
            layout.LOGS / "debootstrap.log",
        )  # fmt: skip
        for pattern in NOT_NEEDED:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (root / "usr/bin/python").symlink_to("python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        (root / "etc/resolv.conf").write_text("")  # the host's, copied by debootstrap
        (root / "etc/hostname").unlink(missing_ok=True)
        layer = Path(folder, "layer.tar")
        output_of(["tar", "--numeric-owner", "--xattrs", "--one-file-system", "-C", str(root), "-cf", str(layer), "."])
        environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        archive.write(target, reference, layer, {"Cmd": ["python3"], "Env": environment})
