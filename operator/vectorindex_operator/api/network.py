"""VectorIndex.spec.searcher.networkPolicy and searcher.service as pydantic models: who reaches the pods, and how.

No I/O and no Kubernetes client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vectorindex_operator.api.fields import AnnotationMap, CelRule, Cidr, LabelMap
from vectorindex_searcher.contract import Model


class LabelSelector(Model):
    """Labels that must all be there; none: everything."""

    match_labels: Annotated[LabelMap, Field(max_length=16)] = {}
    """Each with exactly this value."""


class IpBlock(Model):
    """A range of addresses, as in a NetworkPolicy."""

    cidr: Cidr
    """For example 10.0.0.0/8 or 2001:db8::/32."""
    except_: Annotated[tuple[Cidr, ...], Field(max_length=16, alias="except")] = ()
    """Smaller ranges within it that are kept out."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule("isCIDR(self.cidr)", "cidr must be a range of addresses such as 10.0.0.0/8", ".cidr"),
        CelRule(
            "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) && cidr(self.cidr).containsCIDR(e)"
            " && cidr(e).prefixLength() > cidr(self.cidr).prefixLength())",
            "each range in except must be a smaller one within cidr",
            ".except",
        ),
    )


class NetworkPeer(Model):
    """Who may connect, as in a NetworkPolicy's `from`: pods, namespaces, pods of namespaces, or addresses."""

    pod_selector: LabelSelector | None = None
    """Pods with these labels: of this namespace, or of those that namespaceSelector names."""
    namespace_selector: LabelSelector | None = None
    """Namespaces with these labels; {} is every namespace."""
    ip_block: IpBlock | None = None
    """Addresses, mostly of what is outside the cluster."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            "name either ipBlock, or podSelector and namespaceSelector (one or both)",
        ),
    )


class NetworkPolicy(Model):
    """Who reaches the pods over the network, where the cluster's network enforces NetworkPolicies."""

    mode: Literal["None", "Managed"] = "None"
    """Managed: one NetworkPolicy that lets `from` query, and the operator, metrics and the index's own pods reach the
    admin port. It restricts no egress. None: there is none of the operator's; yours stay."""
    from_: Annotated[tuple[NetworkPeer, ...], Field(max_length=16, alias="from")] = ()
    """Who may query. For everyone in the cluster: a peer with namespaceSelector {}."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!has(self.mode) || self.mode != 'Managed' || (has(self.from) && size(self.from) > 0)",
            "mode Managed needs from: say who may query",
            ".from",
        ),
        CelRule(
            "(has(self.mode) && self.mode == 'Managed') || !has(self.from) || size(self.from) == 0",
            "from needs mode Managed: without it nobody is kept out",
            ".from",
        ),
    )


class FrontService(Model):
    """The Service that users query. An edit holds at once, by a patch of what is there: neither the traffic nor the
    Service's address moves."""

    annotations: Annotated[AnnotationMap | None, Field(max_length=32)] = None
    """Beside ours: what DNS, meshes and gateways of the cluster go by."""
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    """As in Kubernetes. Left out, it stays as it is."""
    traffic_distribution: Annotated[str | None, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=63)] = None
    """As in Kubernetes: PreferClose, where the cluster knows them also PreferSameZone and PreferSameNode."""
    refused: ClassVar[Mapping[str, str]] = {
        "type": "it is ClusterIP: put a Gateway or an Ingress before it",
        "selector": "it is the operator's own: it says who has the traffic",
        "ports": "they are the operator's own",
    }
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!has(self.annotations) || !self.annotations.exists(k,"
            " k.startsWith('vectorindex.dev/') || k.startsWith('kubectl.kubernetes.io/'))",
            "annotations has one that is the operator's, or kubectl's, own: take it out",
            ".annotations",
        ),
    )
