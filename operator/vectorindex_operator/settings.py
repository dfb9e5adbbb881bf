"""Installation of one operator process: environment variables, each with a flag of the same name."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vectorindex_operator.adapters.mounted_keys import read_keys
from vectorindex_operator.adapters.prometheus import Server
from vectorindex_operator.adapters.webhook import Receiver
from vectorindex_operator.core.state import Installation, TrustBundle
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS, finalizer_of
from vectorindex_searcher.contract import CLUSTER_UID

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
SWITCH = ("false", "true")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Flag:
    """A text that an installation may choose: flag `--<name>`, variable `VECTORINDEX_<NAME>` unless it has another."""

    name: str
    help: str
    default: str = ""
    other_variable: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return self.other_variable or "VECTORINDEX_" + self.name.upper().replace("-", "_")


FLAGS = (
    Flag("searcher-image", "image of the data plane: Jobs and searchers; required"),
    Flag("gpu-image", "image of GPU build Jobs; default: the searcher image"),
    Flag("image-pull-policy", f"pull policy of Jobs and searchers: {', '.join(PULL_POLICIES)}", "IfNotPresent"),
    Flag("image-pull-secrets", "comma separated names of pull Secrets of Jobs and searchers"),
    Flag(
        "internal-key-dir",
        "folder of a mounted Secret: `key` signs requests to searchers, `previous` those to revisions made before a "
        "rotation; default: none is signed",
    ),
    Flag(
        "fixed-user",
        "false: Jobs and searchers name no user, group or fsGroup, so that the cluster assigns them, as OpenShift does",
        "true",
    ),
    Flag("http-proxy", "HTTP_PROXY of Jobs and searchers"),
    Flag("https-proxy", "HTTPS_PROXY of Jobs and searchers"),
    Flag("no-proxy", "NO_PROXY of Jobs and searchers: what is in the cluster, above all"),
    Flag(
        "trust-bundle",
        "NAME/KEY: a ConfigMap, in each namespace with a VectorIndex, and its key with the CAs (PEM) that Jobs and "
        "searchers trust; default: those of the image",
    ),
    Flag("watch-namespaces", "comma separated; default: all namespaces"),
    Flag("namespace", "namespace of the Lease that keeps a second operator waiting", "default", "POD_NAMESPACE"),
    Flag(
        "operator-labels",
        "labels of the operator's own pod, a=b,c=d, by which managed NetworkPolicies let it in; default: all pods of "
        "--namespace",
    ),
    Flag("metrics-from", "whom managed NetworkPolicies let scrape searchers: a NetworkPolicy's `from` as JSON"),
    Flag("identity", "holder name in the Lease", socket.gethostname(), "POD_NAME"),
    Flag("http-port", "port of /livez, /readyz and /metrics", "8080"),
    Flag("log-level", f"one of {', '.join(LOG_LEVELS)}", "INFO"),
    Flag(
        "cluster-uid",
        "by which artifacts are marked as used by this cluster, where several share a bucket; default: they are not",
    ),
    Flag(
        "collect-history",
        "true: the artifacts of revisions that fall out of the history are removed; needs --cluster-uid",
        "false",
    ),
    Flag(
        "outcomes",
        "true: what was decided about revisions is kept beside their artifacts, and a new VectorIndex begins with what "
        "one of its name left there",
        "false",
    ),
    Flag(
        "prometheus-url",
        "where rules on PromQL are answered, {namespace} filled in; default: such rules say Error",
    ),
    Flag("prometheus-tenant-header", "header that names the index's namespace to it, for example X-Scope-OrgID"),
    Flag(
        "prometheus-secret-dir",
        "folder of a mounted Secret: `token`, or `username` and `password`, and `ca.crt`, as far as it needs them",
    ),
    Flag("webhook-url", "where what is decided is sent, as CloudEvents; default: nowhere"),
    Flag("webhook-secret-dir", "folder of a mounted Secret: `key` signs them; default: they are not signed"),
    Flag("operator-class", "which VectorIndexes are this operator's, where there are two", DEFAULT_CLASS),
)


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number that an installation may choose."""

    name: str
    default: int
    least: int
    most: int
    help: str

    def as_flag(self) -> Flag:
        return Flag(self.name, f"{self.help}; {self.least} to {self.most}", str(self.default))


NUMBERS = (
    Number("workers", 4, 1, 64, "VectorIndexes reconciled at the same time"),
    Number("searcher-connections", 16, 1, 256, "searchers of one index asked for evidence at the same time"),
    Number("relist-seconds", 120, 10, 3600, "how often what the watches missed is looked for"),
    Number("request-seconds", 20, 1, 120, "the most that the API server may take to answer"),
    Number("stuck-seconds", 300, 30, 3600, "a pass that runs for so long is stuck, and /livez fails"),
    Number("lease-seconds", 15, 9, 300, "so long after its last renewal another replica takes over"),
    Number("soak-look-seconds", 5, 1, 60, "how often the pods of a revision that soaks are asked what they counted"),
    Number(
        "watch-look-seconds", 30, 5, 300, "how often those of a stable revision are, in the day after its promotion"
    ),
    Number("evidence-mebibytes", 192, 32, 4096, "memory that all answers of searchers may take together"),
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
    soak_look_seconds: int
    watch_look_seconds: int
    evidence_mebibytes: int


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
    prometheus: Server | None
    receiver: Receiver | None
    tuning: Tuning


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`; defaults come from the environment, where the chart puts them."""
    for one in (*FLAGS, *(number.as_flag() for number in NUMBERS)):
        default = os.environ.get(one.variable, one.default)
        parser.add_argument(one.flag, default=default, help=f"{one.help} ({one.variable})")


def from_flags(flags: argparse.Namespace) -> OperatorSettings:
    """Installation from parsed flags. Raises ValueError naming flag and remedy."""
    if not flags.searcher_image:
        raise ValueError(
            "--searcher-image is empty: name the data plane's image (VECTORINDEX_SEARCHER_IMAGE; in the chart: "
            "searcherImage.repository)"
        )
    log_level = flags.log_level.upper()
    _one_of(flags.image_pull_policy, PULL_POLICIES, "--image-pull-policy", "VECTORINDEX_IMAGE_PULL_POLICY")
    _one_of(log_level, LOG_LEVELS, "--log-level", "VECTORINDEX_LOG_LEVEL")
    tuning = Tuning(**{one.name.replace("-", "_"): _number(flags, one) for one in NUMBERS})
    return OperatorSettings(
        installation=Installation(
            searcher_image=flags.searcher_image,
            gpu_image=flags.gpu_image,
            image_pull_policy=flags.image_pull_policy,
            image_pull_secrets=_names(flags.image_pull_secrets),
            fixed_user=_switch(flags.fixed_user, "--fixed-user", "VECTORINDEX_FIXED_USER"),
            proxies=_proxies(flags),
            trust_bundle=_trust_bundle(flags.trust_bundle),
            internal_keys=read_keys(flags.internal_key_dir),
            namespace=flags.namespace,
            cluster_uid=_cluster(flags.cluster_uid),
            collect_history=_collects(flags),
            outcomes=_switch(flags.outcomes, "--outcomes", "VECTORINDEX_OUTCOMES"),
            finalizer=finalizer_of(_class(flags.operator_class)),
            labels=_labels(flags.operator_labels),
            metrics_from=_peers(flags.metrics_from),
            notifies=bool(flags.webhook_url),
            soak_look_seconds=tuning.soak_look_seconds,
            watch_look_seconds=tuning.watch_look_seconds,
        ),
        watch_namespaces=_names(flags.watch_namespaces),
        namespace=flags.namespace,
        identity=flags.identity,
        http_port=_port(flags.http_port),
        log_level=log_level,
        operator_class=_class(flags.operator_class),
        prometheus=_prometheus(flags),
        receiver=_receiver(flags),
        tuning=tuning,
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


def _proxies(flags: argparse.Namespace) -> dict[str, str]:
    given = {"HTTP_PROXY": flags.http_proxy, "HTTPS_PROXY": flags.https_proxy, "NO_PROXY": flags.no_proxy}
    return {name: value for name, value in given.items() if value}


def _trust_bundle(text: str) -> TrustBundle | None:
    name, _, key = text.partition("/")
    if text and not (re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", name) and re.fullmatch(r"[-._\w]+", key)):
        raise ValueError(
            f"--trust-bundle is {text[:100]!r}: write NAME/KEY, a ConfigMap and its key (VECTORINDEX_TRUST_BUNDLE; in "
            "the chart: trustBundle)"
        )
    return TrustBundle(name, key) if text else None


def _switch(value: str, flag: str, variable: str) -> bool:
    _one_of(value, SWITCH, flag, variable)
    return value == "true"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise ValueError(f"--http-port is {text!r}: use a port from 1 to 65535 (VECTORINDEX_HTTP_PORT)")
    return int(text)


def _prometheus(flags: argparse.Namespace) -> Server | None:
    url, header = flags.prometheus_url, flags.prometheus_tenant_header
    if not url:
        return None
    if not _is_address(url.replace("{namespace}", "namespace")):
        # It may hold a password: it is not repeated.
        raise ValueError(
            "--prometheus-url is no http or https address without user and password, for example "
            "http://prometheus.monitoring.svc:9090; what it needs to be let in goes into a Secret "
            "(VECTORINDEX_PROMETHEUS_URL; in the chart: prometheus.url, prometheus.secretName)"
        )
    if header and not re.fullmatch(r"[A-Za-z0-9-]{1,100}", header):
        raise ValueError(
            f"--prometheus-tenant-header is {header!r}: use the name of a header, for example X-Scope-OrgID "
            "(VECTORINDEX_PROMETHEUS_TENANT_HEADER; in the chart: prometheus.tenantHeader)"
        )
    return Server(url, header, flags.prometheus_secret_dir)


def _receiver(flags: argparse.Namespace) -> Receiver | None:
    url = flags.webhook_url
    if not url:
        return None
    if not _is_address(url):
        raise ValueError(
            "--webhook-url is no http or https address without user and password, for example "
            "https://hooks.example.com/vectorindex (VECTORINDEX_WEBHOOK_URL; in the chart: webhook.url)"
        )
    receiver = Receiver(url, flags.webhook_secret_dir, _cluster(flags.cluster_uid))
    if receiver.secret:
        try:
            receiver.key()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--webhook-secret-dir: `key` cannot be used ({type(error).__name__}): give the Secret the key `key`, "
                "one line of base64 after `whsec_`, for example from `openssl rand -base64 32` (in the chart: "
                "webhook.secretName)"
            ) from None
    return receiver


def _is_address(url: str) -> bool:
    """Of http or https, with nothing in it that lets one in."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        return fits and parts.port != 0 and not parts.fragment and url.isprintable() and " " not in url
    except ValueError:
        return False


def _cluster(text: str) -> str:
    if not re.fullmatch(CLUSTER_UID, text):
        raise ValueError(
            f"--cluster-uid is {text[:100]!r}: use up to 63 letters, digits and '-' (VECTORINDEX_CLUSTER_UID; in the "
            "chart: clusterUid)"
        )
    return text


def _collects(flags: argparse.Namespace) -> bool:
    collects = _switch(flags.collect_history, "--collect-history", "VECTORINDEX_COLLECT_HISTORY")
    if collects and not flags.cluster_uid:
        raise ValueError(
            "--collect-history needs --cluster-uid: without it nobody knows who else uses an artifact "
            "(VECTORINDEX_CLUSTER_UID; in the chart: clusterUid)"
        )
    return collects


def _class(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", text):
        raise ValueError(
            f"--operator-class is {text!r}: use up to 32 lower-case letters, digits and '-', none at an end "
            "(VECTORINDEX_OPERATOR_CLASS)"
        )
    return text


def _number(flags: argparse.Namespace, number: Number) -> int:
    text, known = str(getattr(flags, number.name.replace("-", "_"))), number.as_flag()
    if not text.isdecimal() or len(text) > 9 or not number.least <= int(text) <= number.most:
        raise ValueError(
            f"{known.flag} is {text!r}: use a whole number from {number.least} to {number.most} ({known.variable})"
        )
    return int(text)
