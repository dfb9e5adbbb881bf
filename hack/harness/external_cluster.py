"""Clusters that hack/local-cluster did not make: kind where Docker is, or the one the user's kubeconfig names.

The object store is the same versitygw; this machine reaches it through `kubectl port-forward`.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from string import Template
from threading import Thread
from typing import Any

import yaml

from harness.base import CHECKOUT, Cluster, Image, S3Access
from harness.commands import run
from harness.errors import HarnessError, LackingError

LOCAL_CLUSTER = CHECKOUT / "hack" / "local-cluster"
OBJECT_STORE = {
    "OBJECT_STORE_NAMESPACE": "object-store",
    "OBJECT_STORE_PORT": "9000",
    "OBJECT_STORE_IP": '""',
    "OBJECT_STORE_IMAGE": os.environ.get("OBJECT_STORE_IMAGE", "versity/versitygw:v1.8.0"),
    "S3_REGION": "us-east-1",
}
KIND_NAME = "vectorindex"
DIGESTS = {"operator": "OPERATOR_DIGEST", "searcher": "SEARCHER_DIGEST"}
"""By which variables the images of CLUSTER=current are named, in the place of IMAGE_TAG."""
FORWARD_SECONDS = 30


class OtherCluster(Cluster):
    """What kind and the user's own cluster share."""

    def s3(self) -> S3Access:
        return self._s3

    @cached_property
    def _s3(self) -> S3Access:
        """Deployed once; the port-forward ends with this process."""
        values = OBJECT_STORE | _credentials()
        if self.namespace:
            values["OBJECT_STORE_NAMESPACE"] = self.namespace
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(object_store(values, self)))
        namespace, port = values["OBJECT_STORE_NAMESPACE"], values["OBJECT_STORE_PORT"]
        self.kubectl("-n", namespace, "rollout", "status", "deployment/s3", "--timeout=180s", timeout=200)
        return S3Access(
            endpoint=f"http://127.0.0.1:{self._forward(namespace, 'service/s3', port)}",
            endpoint_in_cluster=f"http://s3.{namespace}.svc:{port}",
            access_key=values["S3_ACCESS_KEY"],
            secret_key=values["S3_SECRET_KEY"],
            region=values["S3_REGION"],
        )

    def _forward(self, namespace: str, target: str, port: str) -> int:
        """The local port of a `kubectl port-forward` that lives as long as this process."""
        command = self.kubectl_command("-n", namespace, "port-forward", target, f":{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        atexit.register(process.terminate)
        opened: Future[int] = Future()
        Thread(target=_listen, args=(process, opened), name="port-forward", daemon=True).start()
        what = f"port-forward to {namespace}/{target}"
        try:
            return opened.result(FORWARD_SECONDS)
        except TimeoutError:
            raise HarnessError(f"waited {FORWARD_SECONDS} s for a {what}") from None
        except EOFError as last_words:
            raise HarnessError(f"the {what} ended: {last_words}") from None


def _listen(process: subprocess.Popen[str], opened: Future[int]) -> None:
    """Reads all that it says (a pipe that nobody reads stops its writer); EOFError with the end of it when no port."""
    said = ""
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            said = f"{said}{line}"[-2000:]
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found and not opened.done():
                opened.set_result(int(found.group(1)))
    if not opened.done():
        opened.set_exception(EOFError(said.strip() or "it said nothing"))


def object_store(values: Mapping[str, str], cluster: Cluster) -> list[dict[str, Any]]:
    """The objects of the S3 server: without the namespace where that is somebody else's."""
    text = Template((LOCAL_CLUSTER / "manifests" / "object-store.yaml").read_text()).substitute(values)
    objects = [one for one in yaml.safe_load_all(text) if not (cluster.namespace and one["kind"] == "Namespace")]
    for one in objects:
        if one["kind"] == "Deployment" and cluster.pull_secrets:
            one["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": name} for name in cluster.pull_secrets]
    return objects


class KindCluster(OtherCluster):
    """A cluster of its own in Docker, with its own kubeconfig: the user's is not touched."""

    name = "kind"

    def __init__(self) -> None:
        cache = Path(os.environ.get("VECTORINDEX_CACHE") or Path.home() / ".cache" / "vectorindex-operator")
        cache.mkdir(parents=True, exist_ok=True)
        self.kubeconfig = cache / "kind.kubeconfig"

    def up(self) -> None:
        missing = [name for name in ("docker", "kind", "kubectl", "helm") if shutil.which(name) is None]
        if missing:
            raise HarnessError(f"CLUSTER=kind needs {', '.join(missing)} on this machine")
        if KIND_NAME not in run(["kind", "get", "clusters"], timeout=60).split():
            print("creating a kind cluster (1 to 3 min)", file=sys.stderr, flush=True)
            run(["kind", "create", "cluster", "--name", KIND_NAME, "--wait", "180s", "--kubeconfig", self.kubeconfig],
                timeout=900, show=True)  # fmt: skip
        else:
            run(["kind", "export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig", self.kubeconfig], timeout=60)

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        image = Image(f"localhost/vectorindex-{target}", tag)
        build = ["docker", "build", "--target", target, "--tag", image.reference, str(checkout)]
        run(build, timeout=1800, environment={"DOCKER_BUILDKIT": "1"}, show=True)
        run(["kind", "load", "docker-image", image.reference, "--name", KIND_NAME], timeout=300, show=True)
        return image


class CurrentCluster(OtherCluster):
    """The cluster that the user's kubeconfig names, because they said CLUSTER=current. Images come from a registry."""

    name = "current"

    def __init__(self) -> None:
        paths = (os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")).split(os.pathsep)
        self.kubeconfig = Path(next((path for path in paths if path and Path(path).exists()), paths[0]))
        if not self.kubeconfig.exists():
            raise HarnessError(f"CLUSTER=current: there is no kubeconfig at {self.kubeconfig}; set KUBECONFIG")
        if len(paths) > 1:
            raise HarnessError("CLUSTER=current: KUBECONFIG names several files; name one")
        self.namespace = os.environ.get("CLUSTER_NAMESPACE", "")
        self.pull_secrets = tuple(filter(None, os.environ.get("PULL_SECRET", "").split(",")))
        self.context = run(
            ["kubectl", "--kubeconfig", self.kubeconfig, "config", "current-context"], timeout=30
        ).strip()

    def up(self) -> None:
        digests = [name for name in DIGESTS.values() if os.environ.get(name)]
        named = DIGESTS.values() if digests else ("IMAGE_TAG",)
        missing = [name for name in ("IMAGE_REPOSITORY", *named) if not os.environ.get(name)]
        if missing:
            raise HarnessError(
                f"CLUSTER=current needs {' and '.join(missing)}: build the Dockerfile's targets operator and searcher, "
                "push them as REGISTRY/vectorindex-operator and REGISTRY/vectorindex-searcher (`make images-push` does "
                "both, and says what to set), and set IMAGE_REPOSITORY=REGISTRY/vectorindex-operator IMAGE_TAG=TAG"
            )
        self.kubectl("version", "--request-timeout=10s")

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        """The registry's tags are the user's: of this checkout, and of another if they name it."""
        repository = os.environ["IMAGE_REPOSITORY"]
        name = repository if target == "operator" else f"{repository.removesuffix('-operator')}-{target}"
        if checkout == CHECKOUT and (digest := os.environ.get(DIGESTS[target])):
            return Image(name, os.environ.get("IMAGE_TAG", ""), digest)
        variable = "IMAGE_TAG" if checkout == CHECKOUT else "PAST_IMAGE_TAG"
        if not os.environ.get(variable):
            raise LackingError(f"CLUSTER=current needs {variable}, the tag of the images that would here be {tag}")
        return Image(name, os.environ[variable])


def _credentials() -> dict[str, str]:
    lines = (LOCAL_CLUSTER / "object-store.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
