"""Where data is, and how pods reach it: what a VectorIndex says about the stores that it names."""

from __future__ import annotations

from typing import ClassVar

from vectorindex_operator.api.fields import CelRule, ObjectName
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model


class SecretRef(Model):
    """A Secret of the same namespace, read by the pods, never by the operator.

    Keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, optional AWS_SESSION_TOKEN, CA_PEM.
    """

    name: ObjectName
    """Name of the Secret."""


class S3(contract.S3):
    """A bucket and a key prefix. Without `secretRef` the pods' own identity is used."""

    secret_ref: SecretRef | None = None
    """Whose keys the pods use. Absent: the identity of their ServiceAccount."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!(has(self.anonymous) && self.anonymous && has(self.secretRef))",
            "anonymous and secretRef contradict each other: remove one of them",
            ".anonymous",
        ),
    )

    def reached_by(self, live: S3) -> S3:
        """This place, reached as `live` reaches the same bucket today: its endpoint, region and Secret, or none.

        In another bucket than `live` it is reached as before: nothing is known of how else.
        """
        if live.bucket != self.bucket:
            return self
        how = ("endpoint", "region", "secret_ref", "anonymous")
        return self.model_copy(update={name: getattr(live, name) for name in how})

    def location(self) -> contract.Location:
        """What travels to the data plane: the place, never the credentials."""
        return contract.Location(s3=contract.S3(**{f: getattr(self, f) for f in contract.S3.model_fields}))
