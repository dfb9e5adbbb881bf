"""`python -m releasing`, as `make release` and `make images-push` call it.

A dry run builds everything that this machine can build and says what would be sent out; nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.base import CHECKOUT
from harness.commands import run
from harness.errors import HarnessError
from releasing import files, images, publish, sbom, versions
from releasing.images import PLATFORMS, TARGETS, Registry

OUT = CHECKOUT / "build" / "release"
EXAMPLE = "registry.example.com/team"
"""What a dry run puts where no registry is named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: everything that was to be done was done."""
    options = _parser().parse_args(arguments)
    options.platform = options.platform or list(PLATFORMS)
    registry = images.local() if options.local else Registry(options.registry, options.authfile, options.plain_http)
    try:
        if options.verb == "push":
            return _push(registry, options.tag)
        return _release(options, registry)
    except HarnessError as failure:
        print(f"release: {failure}", file=sys.stderr)
    return 1


def _push(registry: Registry, tag: str) -> int:
    if not registry.prefix:
        raise HarnessError("name a registry: make images-push REGISTRY=registry.example.com/team")
    digests = images.push(registry, tag)
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / "pushed.yaml"
    file.write_text(images.values(registry.prefix, digests))
    print(file.read_text())
    print(f"these are values of the chart: helm install ... --values {file.relative_to(CHECKOUT)}")
    print(f"the demo with them: {images.variables(registry.prefix, digests)} CLUSTER=current make demo")
    return 0


def _release(options: argparse.Namespace, registry: Registry) -> int:
    found = versions.read(CHECKOUT)
    if wrong := found.disagreements():
        raise HarnessError("the versions do not agree:\n  " + "\n  ".join(wrong))
    missing = versions.unpublishable(CHECKOUT, found) + _unbuildable(options)
    if options.publish and missing:
        raise HarnessError("not to be published:\n  " + "\n  ".join(missing))
    out = OUT / found.project
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    platforms = [one for one in options.platform if images.buildable(one)]
    print(f"{'release' if options.publish else 'dry run of release'} {found.project}, in {out.relative_to(CHECKOUT)}")
    files.python(options.uv, out)
    chart = files.chart(options.helm, out)
    base = ["--base", options.base] if options.base else []
    layouts = {target: out / files.IMAGES / target for target in TARGETS}
    digests = {}
    for target, layout in layouts.items():
        layout.mkdir(parents=True)
        to = f"oci:{layout}:{found.project}"
        digests[target] = images.build(target, to, platforms, [*base, *registry.flags()])
    if options.publish:
        digests = images.push(registry, found.project, platforms, base)
    for target, layout in layouts.items():
        bill = sbom.of_image(options.uv, target, layout, f"vectorindex-{target}", found.project, digests[target])
        files.write(out / f"{target}.cdx.json", bill)
    (out / "images.yaml").write_text(images.values(registry.prefix or EXAMPLE, digests))
    files.write(out / files.PROVENANCE, files.provenance(options.base))
    files.write_sums(out)
    _say(out, digests)
    where = registry if registry.prefix else Registry(EXAMPLE)
    signer = publish.Signer(os.environ.get("COSIGN_KEY", ""), os.environ.get("COSIGN_SIGNING_CONFIG", ""))
    steps = publish.steps(where, found.project, out, digests, chart, signer=signer, helm=options.helm)
    if not options.publish:
        _tell(options, missing, steps, where, found.project)
        return 0
    _publish(steps, registry)
    print("\nwhoever gets it verifies it by:")
    for step in publish.checks(where, out, digests, signer.looked_at()):
        print(f"  # {step.title}\n  {_shown(step.command)}")
    return 0


def _unbuildable(options: argparse.Namespace) -> list[str]:
    """What keeps this machine from making what others may use."""
    found = [
        f"{one} cannot be built here: it needs a machine of that kind, or an emulator (Debian's qemu-user-static)"
        for one in options.platform
        if not images.buildable(one)
    ]
    if "@sha256:" not in options.base:
        found.append("no base image by digest: BASE=python@sha256:... (here a stand-in is built upon)")
    if not options.registry:
        found.append("no registry: REGISTRY=registry.example.com/team")
    if not shutil.which("cosign"):
        found.append("no cosign on this machine: it signs the images, their bills, and the checksums")
    return found


def _say(out: Path, digests: dict[str, str]) -> None:
    for name, digest in files.sums(out).items():
        print(f"  {name:<48} sha256:{digest[:16]}... {(out / name).stat().st_size:>11,} bytes")
    for target, digest in digests.items():
        print(f"  image {target:<42} {digest[:23]}...")


def _tell(
    options: argparse.Namespace,
    missing: Sequence[str],
    steps: Sequence[publish.Step],
    where: Registry,
    version: str,
) -> None:
    """What a dry run leaves out."""
    print("\nPUBLISH=1 would go on with:")
    base = ["--base", options.base or "python@sha256:..."]
    for target in TARGETS:
        to = f"docker://{images.repository(where.prefix, target)}:{version}"
        words = images.command(target, to, options.platform, [*base, *where.flags()])
        print(f"  # image {target}, for {' and '.join(options.platform)}\n  {_shown(words)}")
    for step in steps:
        print(f"  # {step.title}\n  {_shown(step.command)}")
    if missing:
        print("and refuses now, because:\n  " + "\n  ".join(missing))


def _shown(words: Sequence[str]) -> str:
    return shlex.join(words).replace(f"{CHECKOUT}/", "").replace(str(CHECKOUT), ".").replace(sys.executable, "python3")


def _publish(steps: Sequence[publish.Step], registry: Registry) -> None:
    with publish.logged_in(registry) as environment:
        for step in steps:
            print(step.title, flush=True)
            run(list(step.command), timeout=600, show=True, environment=environment)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="releasing", description=__doc__)
    parser.add_argument("verb", nargs="?", choices=["release", "push"], default="release")
    parser.add_argument("--registry", default="", help="what stands before an image's name: registry.example.com/team")
    parser.add_argument("--authfile", type=Path, help="a Docker configuration with the registry's password")
    parser.add_argument("--local", action="store_true", help="it is that of the local cluster: with its password")
    parser.add_argument("--plain-http", action="store_true", help="the registry has no TLS")
    parser.add_argument("--tag", default="", help="of what is pushed; default: of its contents")
    parser.add_argument("--platform", action="append", help=f"default: {' '.join(PLATFORMS)}")
    parser.add_argument("--base", default="", help="the base image, by digest")
    parser.add_argument("--publish", action="store_true", help="send it out; else nothing leaves this machine")
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--helm", default="helm")
    return parser


if __name__ == "__main__":
    sys.exit(main())
