"""Parts of a VectorIndex's spec that travel on to the verbs as they are: columns, embedding, index, gate."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .model import Model
from .numbers import NUMBERS, number_text
from .shards import Shards

MEMORY_PATTERN = r"^[1-9]([0-9]{0,14}|[0-9]{0,8}(k|M|G|T|Ki|Mi|Gi|Ti))$"
_MEMORY_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip

SearchParamName = Annotated[str, Field(min_length=1, max_length=64)]
SearchParamValue = Annotated[int, Field(ge=0, le=1_000_000_000)]
MemoryText = Annotated[
    str,
    Field(
        pattern=MEMORY_PATTERN,
        max_length=20,
        json_schema_extra={NUMBERS: {"kind": "whole", "minimum": 1, "maximum": 10**15 - 1}},
    ),
    BeforeValidator(number_text),
]


def memory_bytes(text: str) -> int:
    """Bytes of a quantity that MEMORY_PATTERN admits ("4Gi", "500M"). Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]*)", text)
    if not match or not re.fullmatch(MEMORY_PATTERN, text):
        raise ValueError(f"{text!r} is not a memory quantity: write for example 4Gi or 500M")
    return int(match[1]) * _MEMORY_UNITS[match[2]]


class Metric(StrEnum):
    """Similarity. Scores shown to users: the cosine, the inner product, or minus the squared L2 distance."""

    COSINE = "Cosine"
    INNER_PRODUCT = "InnerProduct"
    L2 = "L2"


class Device(StrEnum):
    """Where an index is built."""

    CPU = "CPU"
    GPU = "GPU"
    PREFER_GPU = "PreferGPU"


class Columns(Model):
    """Columns of the source. `id`: integer or string, unique. `vector`: lists of floats of one length. `text`:
    strings."""

    id: Annotated[str, Field(min_length=1, max_length=128)] = "id"
    """Column of the ids that searches answer with."""
    vector: Annotated[str, Field(max_length=128)] = "vector"
    """Column of the vectors. Empty: rows have none, and `index.import` gives back what its index has of them."""
    text: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Column of texts, in the place of vectors: the build encodes them with `embedding.encoder`, and only those that
    are new. In Parquet and JSON lines."""
    metadata: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=32)] = ()
    """Columns kept beside the index, for answers and filters."""

    @property
    def bare(self) -> bool:
        """Whether rows have neither a vector nor a text to make one of."""
        return self.text is None and not self.vector


class Embedding(Model):
    """Which model made the vectors. Clients must use the same one, so it never changes within a VectorIndex."""

    model: Annotated[str, Field(max_length=256)] = ""
    """Name of the model. A query that names another is refused."""
    version: Annotated[str, Field(max_length=64)] = ""
    """Version of the model, in quotes: YAML reads 1.10 as 1.1."""
    dimension: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Length of a vector. Absent: read from the data."""
    metric: Metric = Metric.COSINE
    """What makes two vectors similar."""


class Minimise(StrEnum):
    """What `Auto` makes as small as it can among the indexes that reach the recall and fit the memory."""

    LATENCY = "Latency"
    MEMORY = "Memory"


class Objective(Model):
    """What to build and tune for. `recall` is recall@10 at the default operating point."""

    recall: Annotated[float, Field(ge=0.5, le=1.0)] = 0.96
    """The cheapest index and parameters that reach it are taken."""
    minimise: Minimise = Minimise.LATENCY
    """What factory Auto looks for: the fastest index, or the smallest one."""
    memory_limit: MemoryText | None = None
    """Most memory a searcher may need for index, ids and metadata (4Gi, or bytes). Only with factory Auto."""


class Effort(StrEnum):
    """How much CPU time a build may take so that queries take less: how many candidates a graph's links are chosen
    among (efConstruction)."""

    LOW = "Low"
    NORMAL = "Normal"
    HIGH = "High"


def _said(effort: Effort | None) -> Effort | None:
    """None for Normal, written or not: to images and in digests from before there was an effort it is nothing new."""
    return None if effort is Effort.NORMAL else effort


class ImportedIndex(Model):
    """A FAISS index that was built elsewhere, of the rows of the source."""

    index: Annotated[str, Field(min_length=1, max_length=1024)]
    """Key of the file that faiss.write_index wrote, from the top of the source's bucket or volume."""
    sha256: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of that file. Another file is another revision."""
    ids: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Key of a .npy file with the id of each row of the index, in its order, int64 or text. Absent: the index's own
    (IndexIDMap, add_with_ids), or the row numbers."""
    ids_sha256: Annotated[str | None, Field(max_length=64, pattern=r"^[0-9a-f]{64}$", alias="idsSHA256")] = None
    """SHA-256 of the file of ids."""

    @model_validator(mode="after")
    def _ids_are_pinned(self) -> ImportedIndex:
        if (self.ids is None) != (self.ids_sha256 is None):
            raise ValueError("index.import.ids and idsSHA256 go together")
        return self


class IndexSpec(Model):
    """`factory`: Auto, or a FAISS factory string (without pre-transforms of the id: ids are kept beside the index)."""

    later: ClassVar[frozenset[str]] = frozenset({"effort", "imported", "shards"})
    factory: Annotated[str, Field(min_length=1, max_length=128)] = "Auto"
    """Auto measures several kinds of index on a sample; or for example IVF4096,PQ48x4fs,RFlat, HNSW32,SQ8 or Flat."""
    objective: Objective = Objective()
    effort: Annotated[Effort | None, AfterValidator(_said)] = None
    """CPU time of a build for faster queries, where there is a graph (HNSW); Normal where it is left out. High:
    efConstruction 200, not FAISS's 40; a build two to four times as long. Auto weighs 40 alone (Low), 120 too (Normal),
    200 too (High)."""
    search_params: Annotated[dict[SearchParamName, SearchParamValue], Field(max_length=8)] = {}
    """Fixed search parameters by FAISS's names (nprobe, efSearch, k_factor). Empty: tuned. Not with factory Auto."""
    imported: Annotated[ImportedIndex | None, Field(alias="import")] = None
    """Serve this index instead of building one: checked, proven with gate.queries and served like any other."""
    shards: Shards | None = None
    """Built and served in so many parts, each by pods of its own, with routers in front of them: for what is too large
    for one machine. Auto: as many as are needed for one to fit `searcher.memoryPerShard`. Absent: in one."""


class ParamLimits(Model):
    """What queries may choose for themselves. The revision's own operating points are not bound by it."""

    allow: Annotated[tuple[SearchParamName, ...], Field(max_length=16)] | None = None
    """Search parameters that a query may name (nprobe, efSearch, k_factor). Absent: all of the index's; []: none."""
    max: Annotated[dict[SearchParamName, SearchParamValue], Field(max_length=16)] = {}
    """Greatest value of each; one that is not named has the index's own limit."""


class RecallGate(Model):
    """The lower confidence bound of recall@k must be at least `min`. Confidence is one-sided."""

    min: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """Above 0.99 only with index.factory Flat."""
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    """Of the bound: the probability that the true recall is not below it."""


class QueryColumns(Model):
    """Columns of user-given gate queries: vectors, optional class of each query, right answers (ids) and filter."""

    later: ClassVar[frozenset[str]] = frozenset({"filter", "text"})
    vector: Annotated[str, Field(min_length=1, max_length=128)] = "vector"
    segment: Annotated[str, Field(max_length=128)] = ""
    relevant: Annotated[str, Field(max_length=128)] = ""
    filter: Annotated[str, Field(max_length=128)] = ""
    """A query is answered among the rows that its filter keeps."""
    text: Annotated[str, Field(max_length=128)] = ""
    """The query in words, for a cross-encoder; its vector is in `vector` all the same."""
