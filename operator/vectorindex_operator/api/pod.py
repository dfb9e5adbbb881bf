"""Where, as whom and how pods run: what a VectorIndex says about those of its Jobs and of its searchers.

Names and meanings are Kubernetes' own. What is deep there (affinity, volumes) is not repeated here: it is kept as it
is, and judged by the API server (docs/adr/0055-pods-of-a-platform.md). What is ours is refused by name, with a remedy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vectorindex_operator.api.fields import AnnotationMap, CelRule, LabelMap, ObjectName, ObjectNameOrNone
from vectorindex_searcher.contract import Model

POD_BYTES = 32 * 1024
"""The most that one pod may say, as JSON: each revision keeps it, and so may its status."""

Part = Annotated[dict[str, Any], Field(max_length=16)]
"""An object of Kubernetes that is not looked into here."""

OUR_VOLUMES = (
    "tmp", "cache", "tokens", "tls", "trust-bundle", "store-source", "store-artifacts", "store-queries",
    "store-encoder", "store-reranker",
)  # fmt: skip
OUR_LABELS = (
    "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by", "pod-template-hash", "controller-uid", "job-name",
)  # fmt: skip
OUR_KEYS = ("vectorindex.dev/", "batch.kubernetes.io/")
"""Beginnings of labels and annotations by which the operator, or a controller, finds its pods."""
OUR_ENV = ("VECTORINDEX_", "SOURCE_", "ARTIFACTS_", "QUERIES_", "POD_NAME")
CODE_ENV = (
    "LD_", "PYTHON", "GCONV_PATH", "GLIBC_TUNABLES", "OPENSSL_", "OMP_TOOL", "PATH", "HOME", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_DATA_PATH", "AWS_ENDPOINT_URL", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_", "AZURE_", "MSI_ENDPOINT", "IDENTITY_ENDPOINT",
    "GOOGLE_", "GCE_METADATA_", "CUDA_INJECTION", "NVTX_INJECTION", "NVIDIA_",
)  # fmt: skip
"""Beginnings of names by which a process is made to load or run somebody else's code, or to send a file of its own to
a server of their choice, or by which NVIDIA's runtime gives a container GPUs that were not given to its pod."""
LESS_CONFINED = "container.apparmor.security.beta.kubernetes.io/"
"""Annotations by which a container chooses its AppArmor profile, or has none."""


def _cel_list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _no_key_of_ours(field: str, names: tuple[str, ...] = ()) -> CelRule:
    named = f"k in {_cel_list(names)} || " if names else ""
    rule = f"!has(self.{field}) || !self.{field}.exists(k, {named}{_cel_list(OUR_KEYS)}.exists(p, k.startsWith(p)))"
    return CelRule(rule, f"{field} has one that is the operator's own: take it out", f".{field}")


class Toleration(Model):
    """A toleration of the pods, as in Kubernetes."""

    key: Annotated[str, Field(max_length=317)] = ""
    """Key of the taint; empty with Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Equal compares `value`, Exists does not."""
    value: Annotated[str, Field(max_length=63)] = ""
    """Value of the taint."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Empty: every effect."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "self.operator == 'Exists' ? self.value == '' : self.key != ''", "Equal needs a key, Exists takes no value"
        ),
    )


class EnvSource(Model):
    """Where a value comes from, as in Kubernetes; one of these."""

    field_ref: Part | None = None
    """A field of the pod: `{fieldPath: status.hostIP}`."""
    resource_field_ref: Part | None = None
    """A resource of the container: `{resource: limits.cpu}`."""
    config_map_key_ref: Part | None = None
    """A key of a ConfigMap: `{name: ..., key: ...}`."""
    refused: ClassVar[Mapping[str, str]] = {
        "secretKeyRef": "a VectorIndex names Secrets where they are used: source.s3.secretRef, artifacts.s3.secretRef,"
        " searcher.auth, searcher.tls",
    }


class EnvVar(Model):
    """An environment variable of the container."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Its name."""
    value: Annotated[str | None, Field(max_length=4096)] = None
    """Its value."""
    value_from: EnvSource | None = None
    """Where it comes from, in the place of `value`."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            f"!{_cel_list(OUR_ENV)}.exists(p, self.name.startsWith(p))",
            f"the operator itself sets what begins with {_cel_list(OUR_ENV)}: choose another name",
            ".name",
        ),
        CelRule(
            f"!{_cel_list(CODE_ENV)}.exists(p, self.name.startsWith(p))",
            "it would have the process load other code or credentials, get devices, or send files away: take it out",
            ".name",
        ),
        CelRule(
            # The kubelet fills in variables that stand before it, those out of Secrets as well: a proxy's address, for
            # one, would then tell them to whoever it names.
            "!has(self.value) || !self.value.contains('$(')",
            "$(NAME) would be replaced by another variable, which may come from a Secret: write the value itself",
            ".value",
        ),
        CelRule("!has(self.value) || !has(self.valueFrom)", "give value or valueFrom, not both", ".valueFrom"),
    )


class Claim(Model):
    """A PersistentVolumeClaim of the namespace, as in Kubernetes."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name."""
    read_only: bool | None = None
    """Whether the pod may not write to it."""


class Volume(Model):
    """A volume of the pod, as in Kubernetes."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """What volumeMounts call it."""
    config_map: Part | None = None
    """`{name: ...}`; its files are readable by the pod's user."""
    empty_dir: Part | None = None
    """An empty folder, gone with the pod."""
    persistent_volume_claim: Claim | None = None
    """One of the namespace that no place of these pods names: a pod mounts each claim once."""
    refused: ClassVar[Mapping[str, str]] = {
        "hostPath": "pods share nothing with their node",
        "secret": EnvSource.refused["secretKeyRef"],
        "projected": "no API token and no Secret is mounted; a ConfigMap goes by configMap",
        "csi": "have the driver make a Secret, and name that in source.s3.secretRef or artifacts.s3.secretRef",
        "ephemeral": "make a PersistentVolumeClaim, and name it in persistentVolumeClaim",
    }
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "[has(self.configMap), has(self.emptyDir), has(self.persistentVolumeClaim)].filter(one, one).size() == 1",
            "give one of configMap, emptyDir and persistentVolumeClaim",
        ),
        CelRule(
            f"!(self.name in {_cel_list(OUR_VOLUMES)})",
            f"{', '.join(OUR_VOLUMES)} are the operator's own: choose another name",
            ".name",
        ),
    )


class VolumeMount(Model):
    """Where the container has a volume."""

    name: Annotated[str, Field(max_length=63)]
    """One of `volumes`."""
    mount_path: Annotated[str, Field(pattern=r"^/mnt(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$", max_length=256)]
    """Below /mnt: nothing lies over what is in the image."""
    sub_path: Annotated[str | None, Field(max_length=256)] = None
    """A folder or file of the volume; absent: all of it."""
    read_only: bool | None = None
    """Whether the container may not write there."""


class PullSecret(Model):
    """A Secret of the same namespace, with which the kubelet pulls images."""

    name: ObjectName
    """Name of the Secret."""


class Pod(Model):
    """Where, as whom and how the pods run. What is listed here is added to what the operator says, and replaces nothing
    of it."""

    node_selector: Annotated[LabelMap, Field(max_length=16)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that the pods put up with."""
    service_account_name: ObjectNameOrNone = ""
    """Empty: the namespace's default. No API token is mounted."""
    priority_class_name: ObjectNameOrNone = ""
    """Empty: the cluster's default."""
    affinity: Part | None = None
    """Which nodes and neighbours the pods want, or do not."""
    topology_spread_constraints: Annotated[tuple[Part, ...] | None, Field(max_length=8)] = None
    """How pods are spread. One without labelSelector counts the pods of the same revision (of Jobs: of this index).
    Absent: searchers over nodes, as well as there is room."""
    scheduler_name: ObjectName | None = None
    """Absent: the cluster's default."""
    runtime_class_name: ObjectName | None = None
    """Absent: the node's default."""
    labels: Annotated[LabelMap | None, Field(max_length=32)] = None
    """Of the pods, beside ours."""
    annotations: Annotated[AnnotationMap | None, Field(max_length=32)] = None
    """Of the pods, beside ours: what webhooks and agents of the cluster go by."""
    image_pull_secrets: Annotated[tuple[PullSecret, ...] | None, Field(max_length=8)] = None
    """Beside those of the installation."""
    env: Annotated[tuple[EnvVar, ...] | None, Field(max_length=64)] = None
    """Of the one container, beside ours."""
    volumes: Annotated[tuple[Volume, ...] | None, Field(max_length=16)] = None
    """Beside ours."""
    volume_mounts: Annotated[tuple[VolumeMount, ...] | None, Field(max_length=16)] = None
    """Of the one container, beside ours."""
    refused: ClassVar[Mapping[str, str]] = {
        "metadata": "labels and annotations stand in pod itself",
        "spec": "its fields stand in pod itself",
        "containers": "there is one container; its env and volumeMounts stand in pod itself",
        "initContainers": "no other code runs in these pods; a webhook of the cluster may add some, by annotations",
        "resources": "they stand beside pod: build.resources, searcher.resources",
        "envFrom": "name each variable in env",
        "securityContext": "it is that of Pod Security restricted; for OpenShift see fixedUser of the chart",
        "automountServiceAccountToken": "no API token is mounted",
        "hostNetwork": "pods share nothing with their node",
        "hostPID": "pods share nothing with their node",
        "hostIPC": "pods share nothing with their node",
        "nodeName": "use nodeSelector or affinity: the scheduler looks whether there is room",
        "restartPolicy": "it is the operator's own",
        "terminationGracePeriodSeconds": "it is the operator's own: so long searchers drain",
    }
    cel: ClassVar[tuple[CelRule, ...]] = (
        _no_key_of_ours("labels", OUR_LABELS),
        _no_key_of_ours("annotations"),
        CelRule(
            f"!has(self.annotations) || !self.annotations.exists(k, k.startsWith('{LESS_CONFINED}'))",
            "annotations has a profile of AppArmor: the container has the one that its runtime gives everybody",
            ".annotations",
        ),
        CelRule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes)"
            " && self.volumes.exists(v, v.name == m.name))",
            "volumeMounts has one whose volume is not in volumes",
            ".volumeMounts",
        ),
    )

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        size = len(json.dumps(self.wire()))
        if size > POD_BYTES:
            raise ValueError(f"pod has {size} bytes; {POD_BYTES} are taken: put long values into a ConfigMap")
        return self

    @property
    def is_deep(self) -> bool:
        """Whether it holds what only the API server can judge."""
        return bool(self.model_fields_set - _SHALLOW)


_SHALLOW = frozenset({"node_selector", "tolerations", "service_account_name", "priority_class_name"})
"""What the schema bounds as closely as Kubernetes does."""
