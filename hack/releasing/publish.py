"""What sends a release out, as command lines: shown by a dry run, run with PUBLISH=1, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from releasing import files, images
from releasing.images import Registry


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    command: tuple[str, ...]


def steps(
    registry: Registry,
    version: str,
    out: Path,
    digests: Mapping[str, str],
    chart: Path,
    *,
    key: str = "",
    helm: str = "helm",
) -> list[Step]:
    """`digests`: of the images as they are in the registry. `key`: cosign's; empty: by who is logged in."""
    by = ("--key", key) if key else ()
    signed = [step for target in images.TARGETS for step in _signatures(registry, out, target, digests[target], by)]
    plain = ["--plain-http"] if registry.plain_http else []
    known = ["--registry-config", str(registry.authfile)] if registry.authfile else []
    charts = f"oci://{registry.prefix}/charts"
    bundle = out / f"{files.SUMS}.sigstore.json"
    return [
        *signed,
        Step("the chart, as an OCI artifact", (helm, "push", str(chart), charts, *plain, *known)),
        Step(
            "a signature of the checksums",
            ("cosign", "sign-blob", "--yes", *by, "--bundle", str(bundle), str(out / files.SUMS)),
        ),
        Step("the tag", ("git", "push", "origin", f"v{version}")),
    ]


def _signatures(registry: Registry, out: Path, target: str, digest: str, by: tuple[str, ...]) -> list[Step]:
    """Always of a digest: a tag could be another image by the time that it is signed."""
    image = f"{images.repository(registry.prefix, target)}@{digest}"
    attest = ("cosign", "attest", "--yes", *by, "--type")
    return [
        Step(f"a signature of {target}", ("cosign", "sign", "--yes", *by, "--recursive", image)),
        Step(
            f"the bill of {target}, signed",
            (*attest, "cyclonedx", "--predicate", str(out / f"{target}.cdx.json"), image),
        ),
        Step(
            f"where {target} comes from, signed",
            (*attest, "slsaprovenance1", "--predicate", str(out / "provenance.json"), image),
        ),
    ]
