"""Where an index's artifacts lie: the names of their files, and the keys of everything below a prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto

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
ENCODER_FILE = "encoder.arrow"
PAGE_FILE = "report.html"
RANGES_FILE = "ranges.json"
"""SHA-256 of the ranges of the large files (ranges.py); not there where no file is large."""
TRAINED_FILE = "trained.faiss"
DESCRIPTION_FILE = "checkpoint.json"
PROBE = "probe"
MANIFEST_FILE = "manifest.json"
PLAN_FILE = "plan.json"
ROWS_FILE = "rows.json"
SERVED_FILES = (INDEX_FILE, IDS_FILE, METADATA_FILE)
"""What a searcher must have. vectors.npy (live recall), heldout.arrow and measured.arrow (the gate) are fetched by who
needs them."""
_ATTEMPT_FILES = {*SERVED_FILES, VECTORS_FILE, HELDOUT_FILE, MEASURED_FILE, RANGES_FILE, PROBE}
_REPORT_FILES = {REPORT_FILE, CANARY_FILE, POINTS_FILE, ENCODER_FILE, PAGE_FILE}
_SHARD_CANARY = re.compile(r"canary-[0-9]{4}\.arrow")
_CHECKPOINT_FILES = {TRAINED_FILE, DESCRIPTION_FILE}
_NO_DIGESTS = {"listings", "live", "groundtruth", "outcomes", "texts", "fresh"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_SHARD = re.compile(r"[0-9]{4}")
_SNAPSHOT = re.compile(r"([0-9]{12})\.json")


def shard_canary_file(number: int) -> str:
    """Of the whole's report: the canary as shard `number` answers it."""
    return f"canary-{number:04d}.arrow"


class Kind(Enum):
    """What an object of an index's artifacts is."""

    MANIFEST = auto()
    PART = auto()
    """The plan of a sharded artifact, or what says of one shard that it is whole: its manifest, its rows."""
    FILE = auto()
    """Of an attempt, named by a manifest or not."""
    CHECKPOINT = auto()
    REPORT = auto()
    """report.json, or what it names."""
    USER = auto()
    """The mark of a cluster that uses an artifact."""
    LISTING = auto()
    GROUND_TRUTH = auto()
    LIVE_QUERIES = auto()
    TEXTS = auto()
    """Vectors of texts, kept for the next build: they go with the last artifact."""
    OUTCOME = auto()
    """What was decided about a revision. It outlives the artifact: a rejection is of what is built again, too."""
    FRESH = auto()
    """A snapshot of fresh rows: the files that it is made of, whose rows are not here."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A key that is ours. `digest`: of its artifact, empty for what belongs to none. `name`: gate hash of a report,
    fingerprint of a listing, cluster of a mark, name of an outcome, number of a snapshot. `shard`: the part it is of;
    None: of the whole."""

    kind: Kind
    digest: str = ""
    name: str = ""
    shard: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one VectorIndex's artifacts below the prefix of the artifact location.

    A shard of an artifact has the same keys in a folder of its own, `<digest>/shards/0003/`: manifest, files, reports
    and checkpoints. What is of the whole index (listings, plans, marks, ground truths) stays where it is.
    """

    prefix: str
    identity: Identity
    shard: int | None = None
    """Whose manifest, files, reports and checkpoints are meant; None: the artifact's own."""

    def of_shard(self, number: int | None) -> Layout:
        """The same place, of one shard; None: of the whole."""
        return replace(self, shard=number)

    def _folder(self, digest: str) -> str:
        part = () if self.shard is None else ("shards", f"{self.shard:04d}")
        return join_key(self.base, digest, *part)

    @property
    def base(self) -> str:
        return join_key(self.prefix, self.identity.namespace, self.identity.name)

    def listing(self, fingerprint: str) -> str:
        return join_key(self.base, "listings", f"{fingerprint}.json")

    def manifest(self, digest: str) -> str:
        return join_key(self._folder(digest), MANIFEST_FILE)

    def plan(self, digest: str) -> str:
        """How the artifact's rows are shared out among its shards."""
        return join_key(self.base, digest, PLAN_FILE)

    def rows(self, digest: str) -> str:
        """What `partition` has laid ready for this shard."""
        return join_key(self._folder(digest), ROWS_FILE)

    def file(self, digest: str, attempt: str, name: str) -> str:
        return join_key(self._folder(digest), attempt, name)

    def attempts(self, digest: str) -> str:
        """Below it lies what each attempt uploads, and all else of the digest."""
        return self._folder(digest)

    def attempt_of(self, digest: str, key: str) -> str:
        """The attempt whose file has this key; empty for any other key."""
        parts = key.removeprefix(f"{self.attempts(digest)}/").split("/")
        return parts[0] if len(parts) == 2 else ""

    def probe(self, digest: str, attempt: str) -> str:
        """Where an attempt tries what the store can do; there only for a moment."""
        return join_key(self._folder(digest), attempt, PROBE)

    def checkpoints(self, digest: str, key: str = "", name: str = "") -> str:
        return join_key(self._folder(digest), "checkpoints", key, name)

    def digest_of_checkpoint(self, key: str) -> str:
        """The digest whose checkpoint, of this shard, has this key; empty for any other key."""
        owned = self.parse(key)
        mine = owned is not None and owned.kind is Kind.CHECKPOINT and owned.shard == self.shard
        return owned.digest if mine and owned is not None else ""

    def report(self, digest: str, gate_hash: str, name: str = REPORT_FILE) -> str:
        return join_key(self._folder(digest), "reports", gate_hash, name)

    def users(self, digest: str, cluster: str = "") -> str:
        """The mark of a cluster that uses an artifact; without one, what all of them lie below."""
        return join_key(self.base, digest, "users", cluster)

    def parse(self, key: str) -> Owned | None:
        """What a key of ours is of; None for every other, below our prefix or not: that is never to be touched."""
        parts = key.removeprefix(f"{self.base}/").split("/")
        if not key.startswith(f"{self.base}/") or not all(_NAME.fullmatch(part) for part in parts):
            return None
        if parts[0] in _NO_DIGESTS:
            return _of_no_artifact(parts)
        match parts:
            case [digest, "manifest.json"]:
                return Owned(Kind.MANIFEST, digest)
            case [digest, "plan.json"]:
                return Owned(Kind.PART, digest)
            case [digest, "users", cluster]:
                return Owned(Kind.USER, digest, cluster)
            case [digest, "shards", number, ("manifest.json" | "rows.json")] if _SHARD.fullmatch(number):
                return Owned(Kind.PART, digest, shard=int(number))
            case [digest, "shards", number, *rest] if _SHARD.fullmatch(number):
                owned = _below(digest, rest)
                return None if owned is None else replace(owned, shard=int(number))
        return _below(parts[0], parts[1:])

    def owns(self, key: str) -> bool:
        """Whether `parse` knows a key."""
        return self.parse(key) is not None

    def live_queries(self, digest: str = "") -> str:
        """Where the live queries are that a gate of this digest measures with, while it does."""
        return join_key(self.base, "live", f"{digest}.queries" if digest else "")

    def outcome(self, name: str = "") -> str:
        """A document about how a revision ended; without a name, what all of them lie below."""
        return join_key(self.base, "outcomes", f"{name}.json" if name else "")

    def texts(self, encoder: str, name: str = "") -> str:
        """What an encoder made of texts; without a name, what all of it lies below."""
        return join_key(self.base, "texts", encoder, name)

    def fresh(self, number: int | None = None) -> str:
        """A snapshot of fresh rows; without a number, what all of them lie below."""
        return join_key(self.base, "fresh", "" if number is None else f"{number:012d}.json")

    def ground_truth(self, key: str, suffix: str) -> str:
        return join_key(self.ground_truths, f"{key}.{suffix}")

    @property
    def ground_truths(self) -> str:
        return join_key(self.base, "groundtruth")


def _below(digest: str, rest: list[str]) -> Owned | None:
    """What lies below an artifact, and below a shard of one."""
    match rest:
        case ["reports", gate_hash, name] if name in _REPORT_FILES or _SHARD_CANARY.fullmatch(name):
            return Owned(Kind.REPORT, digest, gate_hash)
        case ["checkpoints", _, name] if name in _CHECKPOINT_FILES:
            return Owned(Kind.CHECKPOINT, digest)
        case [_, name] if name in _ATTEMPT_FILES:
            return Owned(Kind.FILE, digest)
    return None


def _of_no_artifact(parts: list[str]) -> Owned | None:
    match parts:
        case ["listings", name] if name.endswith(".json"):
            return Owned(Kind.LISTING, name=name.removesuffix(".json"))
        case ["groundtruth", name] if name.endswith((".json", ".arrow")):
            return Owned(Kind.GROUND_TRUTH)
        case ["live", name] if name.endswith(".queries"):
            return Owned(Kind.LIVE_QUERIES)
        case ["texts", _, name] if name.endswith(".parquet"):
            return Owned(Kind.TEXTS)
        case ["outcomes", name] if name.endswith(".json"):
            return Owned(Kind.OUTCOME, name=name.removesuffix(".json"))
        case ["fresh", name] if (number := _SNAPSHOT.fullmatch(name)) is not None:
            return Owned(Kind.FRESH, name=number[1])
    return None
