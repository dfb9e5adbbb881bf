"""Installation of one operator process: environment variables, each with a flag of the same name."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.adapters.mounted_keys import read_keys
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number that an installation may choose: flag `--<name>`, variable `VECTORINDEX_<NAME>`."""

    name: str
    default: int
    least: int
    most: int
    help: str

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return "VECTORINDEX_" + self.name.upper().replace("-", "_")


NUMBERS = (
    Number("workers", 4, 1, 64, "VectorIndexes reconciled at the same time"),
    Number("searcher-connections", 16, 1, 256, "searchers of one index asked for evidence at the same time"),
    Number("relist-seconds", 120, 10, 3600, "how often what the watches missed is looked for"),
    Number("request-seconds", 20, 1, 120, "the most that the API server may take to answer"),
    Number("stuck-seconds", 300, 30, 3600, "a pass that runs for so long is stuck, and /livez fails"),
    Number("lease-seconds", 15, 9, 300, "so long after its last renewal another replica takes over"),
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The numbers of NUMBERS."""

    workers: int
    searcher_connections: int
    relist_seconds: int
    request_seconds: int
    stuck_seconds: int
    lease_seconds: int


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """What `vectorindex-operator run` was told."""

    installation: Installation
    watch_namespaces: tuple[str, ...]
    namespace: str
    identity: str
    http_port: int
    log_level: str
    operator_class: str
    tuning: Tuning


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`; defaults come from the environment, where the chart puts them."""
    env = os.environ.get
    parser.add_argument(
        "--searcher-image",
        default=env("VECTORINDEX_SEARCHER_IMAGE", ""),
        help="image of the data plane: Jobs and searchers (VECTORINDEX_SEARCHER_IMAGE, required)",
    )
    parser.add_argument(
        "--gpu-image",
        default=env("VECTORINDEX_GPU_IMAGE", ""),
        help="image of GPU build Jobs; default: the searcher image (VECTORINDEX_GPU_IMAGE)",
    )
    parser.add_argument(
        "--image-pull-policy",
        default=env("VECTORINDEX_IMAGE_PULL_POLICY", "IfNotPresent"),
        choices=PULL_POLICIES,
        help="pull policy of Jobs and searchers (VECTORINDEX_IMAGE_PULL_POLICY)",
    )
    parser.add_argument(
        "--image-pull-secrets",
        default=env("VECTORINDEX_IMAGE_PULL_SECRETS", ""),
        help="comma separated names of pull Secrets of Jobs and searchers (VECTORINDEX_IMAGE_PULL_SECRETS)",
    )
    parser.add_argument(
        "--internal-key-dir",
        default=env("VECTORINDEX_INTERNAL_KEY_DIR", ""),
        help="folder of a mounted Secret: `key` signs requests to searchers, `previous` those to revisions "
        "made before a rotation; default: none is signed (VECTORINDEX_INTERNAL_KEY_DIR)",
    )
    parser.add_argument(
        "--watch-namespaces",
        default=env("VECTORINDEX_WATCH_NAMESPACES", ""),
        help="comma separated; default: all namespaces (VECTORINDEX_WATCH_NAMESPACES)",
    )
    parser.add_argument(
        "--namespace",
        default=env("POD_NAMESPACE", "default"),
        help="namespace of the Lease that keeps a second operator waiting (POD_NAMESPACE)",
    )
    parser.add_argument(
        "--operator-labels",
        default=env("VECTORINDEX_OPERATOR_LABELS", ""),
        help="labels of the operator's own pod, a=b,c=d, by which managed NetworkPolicies let it in; default: all pods "
        "of --namespace (VECTORINDEX_OPERATOR_LABELS)",
    )
    parser.add_argument(
        "--metrics-from",
        default=env("VECTORINDEX_METRICS_FROM", ""),
        help="whom managed NetworkPolicies let scrape searchers: a NetworkPolicy's `from` as JSON "
        "(VECTORINDEX_METRICS_FROM)",
    )
    parser.add_argument(
        "--identity",
        default=env("POD_NAME", socket.gethostname()),
        help="holder name in the Lease (POD_NAME)",
    )
    parser.add_argument(
        "--http-port",
        default=env("VECTORINDEX_HTTP_PORT", "8080"),
        help="port of /livez, /readyz and /metrics (VECTORINDEX_HTTP_PORT)",
    )
    parser.add_argument(
        "--log-level",
        default=env("VECTORINDEX_LOG_LEVEL", "INFO").upper(),
        choices=LOG_LEVELS,
        help="(VECTORINDEX_LOG_LEVEL)",
    )
    parser.add_argument(
        "--operator-class",
        default=env("VECTORINDEX_OPERATOR_CLASS", DEFAULT_CLASS),
        help="which VectorIndexes are this operator's, where there are two (VECTORINDEX_OPERATOR_CLASS)",
    )
    for number in NUMBERS:
        parser.add_argument(
            number.flag, default=env(number.variable, str(number.default)), help=f"{number.help} ({number.variable})"
        )


def from_flags(flags: argparse.Namespace) -> OperatorSettings:
    """Installation from parsed flags. Raises ValueError naming flag and remedy."""
    if not flags.searcher_image:
        raise ValueError(
            "--searcher-image is empty: name the data plane's image (VECTORINDEX_SEARCHER_IMAGE; in the chart: "
            "searcherImage.repository)"
        )
    # argparse checks what is typed, not what comes from the environment.
    _one_of(flags.image_pull_policy, PULL_POLICIES, "--image-pull-policy", "VECTORINDEX_IMAGE_PULL_POLICY")
    _one_of(flags.log_level, LOG_LEVELS, "--log-level", "VECTORINDEX_LOG_LEVEL")
    return OperatorSettings(
        installation=Installation(
            searcher_image=flags.searcher_image,
            gpu_image=flags.gpu_image,
            image_pull_policy=flags.image_pull_policy,
            image_pull_secrets=_names(flags.image_pull_secrets),
            internal_keys=read_keys(flags.internal_key_dir),
            namespace=flags.namespace,
            labels=_labels(flags.operator_labels),
            metrics_from=_peers(flags.metrics_from),
        ),
        watch_namespaces=_names(flags.watch_namespaces),
        namespace=flags.namespace,
        identity=flags.identity,
        http_port=_port(flags.http_port),
        log_level=flags.log_level,
        operator_class=_class(flags.operator_class),
        tuning=Tuning(**{one.name.replace("-", "_"): _number(flags, one) for one in NUMBERS}),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _names(text)]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise ValueError(f"--operator-labels has {wrong[0]!r}: write name=value,... (VECTORINDEX_OPERATOR_LABELS)")
    return {name: value for name, _, value in pairs}


def _peers(text: str) -> tuple[dict[str, dict[str, Any]], ...]:
    """Entries of a NetworkPolicy's `from`. The API server checks the rest when a policy is written."""
    try:
        peers = json.loads(text or "[]")
    except (ValueError, RecursionError):
        peers = None
    known = {"podSelector", "namespaceSelector", "ipBlock"}
    if not isinstance(peers, list) or not all(
        isinstance(peer, dict) and peer and peer.keys() <= known and all(isinstance(p, dict) for p in peer.values())
        for peer in peers
    ):
        raise ValueError(
            f"--metrics-from is {text[:200]!r}: write a JSON list of NetworkPolicy peers, for example "
            '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}] '
            "(VECTORINDEX_METRICS_FROM; in the chart: metrics.from)"
        )
    return tuple(peers)


def _one_of(value: str, known: tuple[str, ...], flag: str, variable: str) -> None:
    if value not in known:
        raise ValueError(f"{flag} is {value!r}: use one of {', '.join(known)} ({variable})")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise ValueError(f"--http-port is {text!r}: use a port from 1 to 65535 (VECTORINDEX_HTTP_PORT)")
    return int(text)


def _class(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", text):
        raise ValueError(
            f"--operator-class is {text!r}: use up to 32 lower-case letters, digits and '-', none at an end "
            "(VECTORINDEX_OPERATOR_CLASS)"
        )
    return text


def _number(flags: argparse.Namespace, number: Number) -> int:
    text = str(getattr(flags, number.name.replace("-", "_")))
    if not text.isdecimal() or len(text) > 9 or not number.least <= int(text) <= number.most:
        raise ValueError(
            f"{number.flag} is {text!r}: use a whole number from {number.least} to {number.most} ({number.variable})"
        )
    return int(text)
