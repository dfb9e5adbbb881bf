"""PersistentVolumeClaims on folders of a node, as volumes of the kind `local`: a cluster need have no provisioner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from e2e.workspace import SECRET, Workspace

from harness.kube import Json

ROOT = "/var/lib/vectorindex-e2e"
FETCH = """
import os, pathlib, boto3
client = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], region_name=os.environ["REGION"])
top = pathlib.Path("/node", FOLDER)
for one in client.list_objects_v2(Bucket=os.environ["BUCKET"], Prefix=FROM)["Contents"]:
    new = top / (one["Key"] + ".new")
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(client.get_object(Bucket=os.environ["BUCKET"], Key=one["Key"])["Body"].read())
    new.rename(top / one["Key"])
"""


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims of a workspace, and the hands of whoever fills them: root on the node, in a namespace of its own."""

    space: Workspace
    node: str

    @property
    def tools(self) -> str:
        return f"{self.space.namespace}-tools"

    def fetch(self, claim: str, folder: str) -> None:
        """Copies a folder of the workspace's bucket to the claim, under the same name."""
        self.run(f"fetch-{folder}", f"FROM = {folder + '/'!r}; FOLDER = {self.folder(claim)!r}\n{FETCH}")

    def folder(self, claim: str) -> str:
        """Of a claim, below ROOT."""
        return f"{self.space.namespace}-{claim}"

    def make(self, claim: str) -> None:
        """The folder, its volume and the claim."""
        kube, name = self.space.kube, self.folder(claim)
        self.run(f"make-{claim}", f"import os; os.makedirs('/node/{name}', exist_ok=True)")
        shape = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
        host = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}]}
        volume = shape | {
            "capacity": {"storage": "1Gi"},
            "local": {"path": f"{ROOT}/{name}"},
            "claimRef": {"namespace": self.space.namespace, "name": claim},
            "persistentVolumeReclaimPolicy": "Retain",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [host]}},
        }
        kube.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
        wanted = shape | {"volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
        meta = {"name": claim, "namespace": self.space.namespace}
        kube.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted})

    def remove(self, claim: str) -> None:
        """The claim, its volume and the folder."""
        kube, name = self.space.kube, self.folder(claim)
        kube.delete("PersistentVolumeClaim", claim, self.space.namespace)
        kube.delete("PersistentVolume", name)
        self.run(f"remove-{claim}", f"import shutil; shutil.rmtree('/node/{name}', ignore_errors=True)")

    def run(self, name: str, script: str) -> None:
        """Runs Python as root beside the folders that tests keep on the node, until it has ended well."""
        space, access = self.space, self.space.store.access
        env = {"ENDPOINT": access.endpoint_in_cluster, "REGION": access.region, "BUCKET": space.bucket}
        one: Json = {
            "name": "tool",
            "image": space.images.searcher.reference,
            "command": ["python", "-c", script],
            "securityContext": {"runAsUser": 0},
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "envFrom": [{"secretRef": {"name": SECRET}}],
            "volumeMounts": [{"name": "node", "mountPath": "/node"}],
        }
        volume = {"name": "node", "hostPath": {"path": ROOT, "type": "DirectoryOrCreate"}}
        spec = {"restartPolicy": "Never", "nodeName": self.node, "containers": [one], "volumes": [volume]}
        meta = {"name": name, "namespace": self.tools}
        space.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

        def ended() -> bool:
            pod = space.kube.get("Pod", name, self.tools)
            return pod is not None and bool(pod["status"].get("phase") == "Succeeded")

        space.kube.wait_for(ended, 60, f"the pod {name} to end", last_seen=lambda: space.kube.logs(name, self.tools))


@contextmanager
def claims(space: Workspace, *names: str) -> Iterator[Claims]:
    """Claims of these names; with the end of it they and what is on them are gone."""
    (node, *_) = (one["metadata"]["name"] for one in space.kube.list("Node"))
    kept = Claims(space, node)
    space.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kept.tools}})
    space.kube.wait_for(
        lambda: space.kube.get("ServiceAccount", "default", kept.tools),
        30,
        f"the ServiceAccount of {kept.tools}, without which it takes no pod",
    )
    space.kube.apply_secret(SECRET, kept.tools, space.store.access.secret())
    try:
        for name in names:
            kept.make(name)
        yield kept
    finally:
        for name in names:
            kept.remove(name)
        space.kube.delete("Namespace", kept.tools)
