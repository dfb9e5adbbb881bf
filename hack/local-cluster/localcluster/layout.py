"""Every name, address, path and version of the local cluster, chosen in one place.

Only constants and small pure functions: importing this must not touch the machine.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
VERSIONS: dict[str, Any] = tomllib.loads((HERE / "versions.toml").read_text())

# --- paths: builds survive `down --purge`, the cluster's state does not
CACHE = Path(os.environ.get("VECTORINDEX_CACHE") or Path.home() / ".cache" / "vectorindex-operator").resolve()
BIN = CACHE / "bin"
TOOLS = BIN / "tools"  # kubectl and helm under their own names, for PATH
LOGS = CACHE / "log"
ARCHIVES = CACHE / "images"
BUILDAH = CACHE / "buildah"
STATE = CACHE / "cluster"
PKI = STATE / "pki"
CONF = STATE / "conf"
NODE_LOGS = STATE / "log"
AUDIT = STATE / "audit"
AUDIT_LOG = AUDIT / "audit.log"  # rotated ones lie beside it
CONFIGURATION = STATE / "configuration"  # a digest of what the running node was started with
RECORD = CACHE / "node.json"  # beside the state: whoever deletes that by hand can still stop the node
FAKE_GPU = STATE / "fake-gpu"
KUBECONFIG = CONF / "admin.kubeconfig"

# --- network: the host end and the node end of one veth pair, and what lies behind the node
NODE_NAME = "local"
HOST_IP, NODE_IP, LINK_PREFIX = "10.89.0.1", "10.89.0.2", 24
HOST_LINK, NODE_LINK = "vix-host", "vix-node"
CLUSTER_CIDR = "10.244.0.0/16"
NODE_POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
OBJECT_STORE_IP = "10.96.0.90"
API_PORT = 6443
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

# --- who is in the audit log: the release of the chart, and the one that a test puts beside it
OPERATOR_NAMESPACE, SECOND_OPERATOR_NAMESPACE = "vectorindex-system", "vectorindex-next"
AUDIT_MEGABYTES, AUDIT_BACKUPS = 50, 3

# --- the object store
OBJECT_STORE_NAMESPACE = "object-store"
OBJECT_STORE_PORT = 9000
S3_ENDPOINT = f"http://{OBJECT_STORE_IP}:{OBJECT_STORE_PORT}"
S3_ENDPOINT_IN_CLUSTER = f"http://s3.{OBJECT_STORE_NAMESPACE}.svc:{OBJECT_STORE_PORT}"
S3_REGION = "us-east-1"

# --- the gateway, where there is one: a listener on port 80 of an address that the host reaches, too
GATEWAY_IP = "10.96.0.91"
GATEWAY_CLASS, GATEWAY_NAMESPACE, GATEWAY_NAME = "contour", "gateways", "public"
CONTOUR_NAMESPACE = "projectcontour"  # that of Contour's own roles
GATEWAY_IMAGE = f"localhost/contour:{VERSIONS['contour']['version']}-envoy-{VERSIONS['envoy']['version']}"

# --- Kueue, where there is one
KUEUE_IMAGE = f"localhost/kueue:{VERSIONS['kueue']['version']}"

# Created empty on the host as mount points: some Kubernetes and CNI code has these paths fixed, and inside
# the node's mount namespace a folder of STATE covers each of them.
MOUNT_POINTS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")


def binary(name: str) -> Path:
    """Where the built program of versions.toml's table `name` lies."""
    return BIN / f"{name}-{VERSIONS[name]['version']}"


def object_store_credentials() -> dict[str, str]:
    """S3_ACCESS_KEY and S3_SECRET_KEY from object-store.env."""
    lines = (HERE / "object-store.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def substitutions() -> dict[str, str]:
    """The values that templates in config/ and manifests/ may name as ${NAME}."""
    return {
        "STATE": str(STATE),
        "PKI": str(PKI),
        "CONF": str(CONF),
        "NODE_LOGS": str(NODE_LOGS),
        "AUDIT_LOG": str(AUDIT_LOG),
        "AUDIT_MEGABYTES": str(AUDIT_MEGABYTES),
        "AUDIT_BACKUPS": str(AUDIT_BACKUPS),
        "OPERATOR_NAMESPACE": OPERATOR_NAMESPACE,
        "SECOND_OPERATOR_NAMESPACE": SECOND_OPERATOR_NAMESPACE,
        "NODE_NAME": NODE_NAME,
        "HOST_IP": HOST_IP,
        "NODE_IP": NODE_IP,
        "LINK_PREFIX": str(LINK_PREFIX),
        "NODE_LINK": NODE_LINK,
        "CLUSTER_CIDR": CLUSTER_CIDR,
        "NODE_POD_CIDR": NODE_POD_CIDR,
        "CGROUP_ROOT": "/",
        "SERVICE_CIDR": SERVICE_CIDR,
        "API_PORT": str(API_PORT),
        "CONTAINERD_SOCKET": CONTAINERD_SOCKET,
        "KUBE": str(binary("kubernetes")),
        "COREDNS": str(binary("coredns")),
        "PAUSE_IMAGE": VERSIONS["images"]["pause"],
        "OBJECT_STORE_IMAGE": VERSIONS["images"]["object_store"],
        "OBJECT_STORE_IP": OBJECT_STORE_IP,
        "OBJECT_STORE_NAMESPACE": OBJECT_STORE_NAMESPACE,
        "OBJECT_STORE_PORT": str(OBJECT_STORE_PORT),
        "S3_REGION": S3_REGION,
        "GATEWAY_IP": GATEWAY_IP,
        "GATEWAY_CLASS": GATEWAY_CLASS,
        "GATEWAY_NAMESPACE": GATEWAY_NAMESPACE,
        "GATEWAY_NAME": GATEWAY_NAME,
        "GATEWAY_IMAGE": GATEWAY_IMAGE,
        "CONTOUR_NAMESPACE": CONTOUR_NAMESPACE,
        **object_store_credentials(),
    }
