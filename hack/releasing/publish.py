"""What sends a release out, as command lines: shown by a dry run, run with PUBLISH=1, in this order.

And those by which anybody sees afterwards that what they got is what was sent.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from releasing import files, images
from releasing.images import Registry

ATTESTED = {
    "cyclonedx": ("the bill of {}", "{}.cdx.json"),
    "slsaprovenance1": ("where {} comes from", files.PROVENANCE),
}
"""cosign's type of what is said of an image: its title, and the file that says it."""
BUNDLE = f"{files.SUMS}.sigstore.json"


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signer:
    """`key`: cosign's private key; empty: who is logged in signs. `config`: a signing config of cosign's that names no
    log, for where there is no internet; empty: sigstore's own, with its public log."""

    key: str = ""
    config: str = ""

    def flags(self) -> tuple[str, ...]:
        by = ("--key", self.key) if self.key else ()
        return (*by, "--signing-config", self.config) if self.config else by

    def looked_at(self, public: str = "cosign.pub") -> tuple[str, ...]:
        """How its signatures are verified. `public`: the key to that which signed."""
        someone = ("--certificate-identity", "WHO", "--certificate-oidc-issuer", "WHERE")
        by = ("--key", public) if self.key else someone
        return (*by, "--insecure-ignore-tlog=true") if self.config else by


def steps(
    registry: Registry,
    version: str,
    out: Path,
    digests: Mapping[str, str],
    chart: Path,
    *,
    signer: Signer = Signer(),
    helm: str = "helm",
) -> list[Step]:
    """`digests`: of the images as they are in the registry."""
    signed = [step for target in images.TARGETS for step in _signatures(registry, out, target, digests[target], signer)]
    plain = ["--plain-http"] if registry.plain_http else []
    known = ["--registry-config", str(registry.authfile)] if registry.authfile else []
    charts = f"oci://{registry.prefix}/charts"
    blob = ("cosign", "sign-blob", "--yes", *signer.flags(), "--bundle", str(out / BUNDLE), str(out / files.SUMS))
    return [
        *signed,
        Step("the chart, as an OCI artifact", (helm, "push", str(chart), charts, *plain, *known)),
        Step("a signature of the checksums", blob),
        Step("the tag", ("git", "push", "origin", f"v{version}")),
    ]


def _signatures(registry: Registry, out: Path, target: str, digest: str, signer: Signer) -> list[Step]:
    """Always of a digest: a tag could be another image by the time that it is signed."""
    image, how = _image(registry, target, digest), (*_plain(registry), *signer.flags())
    return [
        Step(f"a signature of {target}", ("cosign", "sign", "--yes", *how, "--recursive", image)),
        *(
            Step(
                f"{title.format(target)}, signed",
                (
                    "cosign",
                    "attest",
                    "--yes",
                    *how,
                    "--type",
                    kind,
                    "--predicate",
                    str(out / file.format(target)),
                    image,
                ),
            )
            for kind, (title, file) in ATTESTED.items()
        ),
    ]


def checks(registry: Registry, out: Path, digests: Mapping[str, str], by: Sequence[str]) -> list[Step]:
    """What whoever gets a release runs. `by`: flags that say who has to have signed (Signer.looked_at)."""
    found = []
    for target in images.TARGETS:
        where = (*_plain(registry), _image(registry, target, digests[target]))
        found.append(Step(f"who signed {target}", ("cosign", "verify", *by, *where)))
        found += [
            Step(f"who says: {title.format(target)}", ("cosign", "verify-attestation", *by, "--type", kind, *where))
            for kind, (title, _) in ATTESTED.items()
        ]
    blob = ("cosign", "verify-blob", *by, "--bundle", str(out / BUNDLE), str(out / files.SUMS))
    return [*found, Step("who signed the checksums", blob)]


def _image(registry: Registry, target: str, digest: str) -> str:
    return f"{images.repository(registry.prefix, target)}@{digest}"


def _plain(registry: Registry) -> tuple[str, ...]:
    return ("--allow-http-registry",) if registry.plain_http else ()


@contextmanager
def logged_in(registry: Registry) -> Iterator[dict[str, str]]:
    """What tells cosign the registry's password, which it reads of a folder: variables until the end of the block."""
    if registry.authfile is None:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(registry.authfile, Path(folder, "config.json"))
        yield {"DOCKER_CONFIG": folder}
