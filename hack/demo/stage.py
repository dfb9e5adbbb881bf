"""Everything that must be there before the first manifest: cluster, images, operator, namespace, data."""

from __future__ import annotations

import time
from dataclasses import dataclass

from demo import data
from demo.printer import Printer
from harness import cluster as clusters
from harness import images, release, s3
from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Kube
from harness.vix import VectorIndexHandle

NAMESPACE, NAME, SECRET = "demo", "pydocs", "s3"
OWNER_LABEL = {"app.kubernetes.io/part-of": "vectorindex-demo"}
BUILD = CHECKOUT / "build" / "demo"


@dataclass(frozen=True, slots=True)
class Stage:
    kube: Kube
    images: Images
    index: VectorIndexHandle
    prepared: data.Prepared


def build(printer: Printer) -> Stage:
    """Sets everything up; what an earlier run left in our namespace goes first."""
    cluster = clusters.choose()
    hint = ": starting what does not run (first time about 12 min, later seconds)" if cluster.name == "local" else ""
    printer.say("cluster", f"{cluster.name}{hint}")
    cluster.up()
    kube = Kube(cluster)
    begin_clean(kube)  # goes on while the images are built
    printer.say("images", "building operator and searcher (first time about 2 min, later seconds)")
    built = images.build(cluster)
    name = release.install(cluster, built)
    printer.say("operator", f"Helm release {name} in namespace {release.NAMESPACE}, image {built.operator.reference}")
    end_clean(kube)
    return _fill(cluster, kube, built, printer)


def _fill(cluster: Cluster, kube: Kube, built: Images, printer: Printer) -> Stage:
    prepared = data.prepare(BUILD / "data")
    store = s3.connect(cluster)
    sent = data.upload(store, prepared)
    kube.ensure_namespace(NAMESPACE, **OWNER_LABEL)
    kube.apply_secret(SECRET, NAMESPACE, store.access.secret())
    printer.say(
        "data",
        f"{prepared.rows:,} documents of Python's standard library, with 384 numbers each: {sent / 1e6:.0f} MB in S3, "
        f"bucket {data.BUCKET}",
    )
    return Stage(kube, built, VectorIndexHandle(kube, NAMESPACE, NAME), prepared)


def begin_clean(kube: Kube) -> None:
    """Asks for the end of our namespace. Raises HarnessError when it is somebody else's."""
    found = kube.get("Namespace", NAMESPACE)
    if found is None or found["status"].get("phase") == "Terminating":
        return
    labels = found["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in OWNER_LABEL.items()):
        raise HarnessError(f"namespace {NAMESPACE} was not made by the demo: rename or remove it first")
    kube.delete("VectorIndex", NAME, NAMESPACE)
    for pod in kube.list("Pod", NAMESPACE):
        kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace=1)
    kube.delete("Namespace", NAMESPACE)


def end_clean(kube: Kube) -> None:
    """Until our namespace is gone."""
    deadline = time.monotonic() + 120
    kube.wait_gone("Namespace", NAMESPACE, timeout=deadline - time.monotonic())


def clean(printer: Printer) -> None:
    """Removes what the demo made in the cluster; operator and cluster stay."""
    cluster = clusters.choose()
    kube = Kube(cluster)
    begin_clean(kube)
    store = s3.connect(cluster)
    for bucket in (data.BUCKET, data.INDEXES):
        store.remove_bucket(bucket)
    end_clean(kube)
    printer.say("clean", f"namespace {NAMESPACE} and buckets {data.BUCKET} and {data.INDEXES} are gone")
    printer.plain(f"the operator stays: helm uninstall {release.installed(cluster)} -n {release.NAMESPACE}")
    if cluster.name == "local":
        printer.plain("the cluster stays: make cluster-down (add its state: hack/local-cluster/cluster down --purge)")
