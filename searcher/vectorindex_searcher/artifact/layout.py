"""Where an index's artifacts lie: the names of their files, and the keys of everything below a prefix."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import Identity
from ..storage.store import join_key

INDEX_FILE = "index.faiss"
IDS_FILE = "ids.arrow"
METADATA_FILE = "metadata.arrow"
VECTORS_FILE = "vectors.npy"
HELDOUT_FILE = "heldout.arrow"
MEASURED_FILE = "measured.arrow"
REPORT_FILE = "report.json"
CANARY_FILE = "canary.arrow"
POINTS_FILE = "points.json"
PAGE_FILE = "report.html"
RANGES_FILE = "ranges.json"
"""SHA-256 of the ranges of the large files (ranges.py); not there where no file is large."""
SERVED_FILES = (INDEX_FILE, IDS_FILE, METADATA_FILE)
"""What a searcher must have. vectors.npy (live recall), heldout.arrow and measured.arrow (the gate) are fetched by who
needs them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one VectorIndex's artifacts below the prefix of the artifact location."""

    prefix: str
    identity: Identity

    @property
    def base(self) -> str:
        return join_key(self.prefix, self.identity.namespace, self.identity.name)

    def listing(self, fingerprint: str) -> str:
        return join_key(self.base, "listings", f"{fingerprint}.json")

    def manifest(self, digest: str) -> str:
        return join_key(self.base, digest, "manifest.json")

    def file(self, digest: str, attempt: str, name: str) -> str:
        return join_key(self.base, digest, attempt, name)

    def attempts(self, digest: str) -> str:
        """Below it lies what each attempt uploads, and all else of the digest."""
        return join_key(self.base, digest)

    def attempt_of(self, digest: str, key: str) -> str:
        """The attempt whose file has this key; empty for any other key."""
        parts = key.removeprefix(f"{self.attempts(digest)}/").split("/")
        return parts[0] if len(parts) == 2 else ""

    def probe(self, digest: str, attempt: str) -> str:
        """Where an attempt tries what the store can do; there only for a moment."""
        return join_key(self.base, digest, attempt, "probe")

    def checkpoints(self, digest: str, key: str = "", name: str = "") -> str:
        return join_key(self.base, digest, "checkpoints", key, name)

    def digest_of_checkpoint(self, key: str) -> str:
        """The digest whose checkpoint has this key; empty for any other key."""
        parts = key.removeprefix(f"{self.base}/").split("/")
        return parts[0] if len(parts) == 4 and parts[1] == "checkpoints" else ""

    def report(self, digest: str, gate_hash: str, name: str = REPORT_FILE) -> str:
        return join_key(self.base, digest, "reports", gate_hash, name)

    def live_queries(self, digest: str = "") -> str:
        """Where the live queries are that a gate of this digest measures with, while it does."""
        return join_key(self.base, "live", f"{digest}.queries" if digest else "")

    def ground_truth(self, key: str, suffix: str) -> str:
        return join_key(self.ground_truths, f"{key}.{suffix}")

    @property
    def ground_truths(self) -> str:
        return join_key(self.base, "groundtruth")
