"""From a factory string to an empty FAISS index: what `Auto` means, and what is refused before FAISS sees it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from ..contract import Effort, Metric
from ..errors import BadSpec
from .binding import faiss
from .metric import faiss_metric
from .parameters import layers

FIELD = "spec.index.factory"
FLAT_FLOATS = 250_000
"""Up to this many floats exact search takes some 30 us on one core, as a graph does (measured at d = 64 to 768:
27 to 38 us against 25 to 62), at recall 1 with nothing to build. At twice as many 58 to 82 us against 22 to 49."""
MAX_LISTS = 1 << 24
MAX_HNSW_LINKS = 512
MIN_LINKS = 4
"""With fewer FAISS ends the process or never ends."""
TRAIN_ROWS_PER_LIST = 100
"""FAISS wants 39 to 256 per list; recall hardly grows beyond this."""
MIN_ROWS_PER_LIST = 39
MIN_TRAIN_ROWS = 65_536
"""For code books (256 centroids, 256 rows each) and scalar ranges."""

EF_CONSTRUCTION: dict[Effort, tuple[int | None, ...]] = {
    Effort.LOW: (None,),
    Effort.NORMAL: (None, 120),
    Effort.HIGH: (None, 120, 200),
}
"""Candidates for the links of a graph's node that `Auto` weighs; None: FAISS's 40, as every index had it at first.
debian-packages, 63,000 x 384, HNSW16, recall 0.98: 738 us a query with 40, 206 with 120; built in 8 s and 22 s."""

_TIMES = {"": 1, "k": 1 << 10, "M": 1 << 20}
_ALLOWED = re.compile(r"[A-Za-z0-9_,()\[\].:+-]+")


def ef_construction(factory: str, effort: Effort) -> int | None:
    """Of the graphs in a factory string that a user gave; with Normal it never changes, as digests do not name it."""
    return EF_CONSTRUCTION[effort][-1] if effort is Effort.HIGH and "HNSW" in factory else None


def small(count: int, dimension: int) -> bool:
    """Whether exact search of so many rows is as fast as anything else, so that `Auto` need not measure."""
    return count * dimension <= FLAT_FLOATS


def make_index(factory: str, count: int, dimension: int, metric: Metric, ef_construction: int | None = None) -> Any:
    """An empty, untrained FAISS index. Raises BadSpec naming spec.index.factory, with FAISS's own words.

    ef_construction: of its graphs, which no factory string can say; None leaves FAISS's own.
    """
    _refuse_early(factory, count)
    try:
        index = faiss.index_factory(dimension, factory, faiss_metric(metric))
    except RuntimeError as error:
        raise _unknown(factory, dimension, faiss_words(error)) from error
    for layer in layers(index):
        if isinstance(layer, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise _id_map(factory)
        if layer.metric_type != faiss_metric(metric):
            # FAISS drops the metric silently for some types, for example HNSW32,PQ16 with inner product.
            message = f"FAISS cannot build {factory!r} with metric {metric.value}"
            raise BadSpec("UnsupportedMetric", message, field=FIELD, remedy="Use another family, or metric Cosine.")
    if kind := _without_distances(index, metric):
        raise BadSpec(
            "UnsupportedIndex",
            f"{factory!r}: FAISS answers {kind} with numbers that are no distances, so there would be no scores",
            field=FIELD,
            remedy="Let another code of the rows compute them: add ,RFlat or ,Refine(SQ8) to the index that searches.",
        )
    _bound_training(index)
    _keep_bytes(index)
    set_ef_construction(index, ef_construction)
    return index


def set_ef_construction(index: Any, ef_construction: int | None) -> None:
    """Build the graphs of `index` with this many candidates for the links of a node, from now on. None: as it is."""
    if ef_construction is None:
        return
    for part in parts(index):
        if isinstance(part, faiss.IndexHNSW):
            part.hnsw.efConstruction = ef_construction


def _keep_bytes(index: Any) -> None:
    """Codes that are the numbers themselves (0 to 255) must not hold differences to a centroid, which wrap around."""
    direct = (faiss.ScalarQuantizer.QT_8bit_direct, faiss.ScalarQuantizer.QT_8bit_direct_signed)
    for layer in layers(index):
        if isinstance(layer, faiss.IndexIVFScalarQuantizer) and layer.sq.qtype in direct:
            layer.by_residual = False


def _without_distances(index: Any, metric: Metric) -> str:
    """What kind of index computes the scores from something else than the metric; empty: none."""
    whole = list(layers(index))
    innermost, outermost = whole[-1], whole[0]
    if isinstance(outermost, faiss.IndexRefine):
        if isinstance(faiss.downcast_index(outermost.refine_index), faiss.IndexRaBitQFastScan):
            return "a refine layer of fast-scan RaBitQ"
        return _without_distances(outermost.refine_index, metric)
    if isinstance(innermost, faiss.IndexLSH | faiss.IndexIVFSpectralHash):
        return "hash codes"
    if not getattr(innermost, "code_size", 1):
        return "codes of no bits"
    if metric is not Metric.INNER_PRODUCT:
        # |q|^2, or |x|^2 too, is left out.
        fast = isinstance(innermost, faiss.IndexAdditiveQuantizerFastScan)
        code = getattr(innermost, "aq", None)
        if fast or (code is not None and code.search_type == faiss.AdditiveQuantizer.ST_LUT_nonorm):
            return "additive codes without norms" if not fast else "fast-scan additive codes"
    return ""


def _bound_training(index: Any) -> None:
    """Bound what training costs: rows a centroid, and no polysemous codes.

    256 rows a centroid, FAISS's default, take 2.5 times as long as 100 for lists that are no better. Polysemous codes
    (8-bit PQ) take minutes of simulated annealing, and what they speed up cannot be asked for by a search parameter
    alone.
    """
    for layer in parts(index):
        if isinstance(layer, faiss.IndexIVF):
            layer.cp.max_points_per_centroid = TRAIN_ROWS_PER_LIST
            layer.cp.min_points_per_centroid = 1  # no warning on stderr: few rows are the user's choice
        if hasattr(layer, "do_polysemous_training"):
            layer.do_polysemous_training = False


def parts(index: Any) -> Iterator[Any]:
    """The index and every index inside it: also a graph's storage, a refine layer's codes, a coarse quantizer."""
    index = faiss.downcast_index(index)
    yield index
    for name in ("base_index", "refine_index", "index", "storage", "quantizer"):
        if isinstance(inner := getattr(index, name, None), faiss.Index):
            yield from parts(inner)


def lists_of(index: Any) -> int:
    """Number of inverted lists; 0 for an index without them."""
    return next((int(layer.nlist) for layer in layers(index) if isinstance(layer, faiss.IndexIVF)), 0)


def list_count(number: str, unit: str) -> int:
    """The lists that "16" or "4" and "k" or "M" of a factory string ask for."""
    return int(number) * _TIMES[unit]


def training_rows(index: Any, count: int, memory_limit: int = 0) -> int:
    """Rows of the training sample; 0 when the index needs none.

    memory_limit: bytes of the pod, 0 for unknown; the sample takes a quarter of it at most, but never less than FAISS
    needs (39 rows a list).
    """
    if index.is_trained:
        return 0
    lists = lists_of(index)
    wanted = max(MIN_TRAIN_ROWS, TRAIN_ROWS_PER_LIST * lists)
    if memory_limit:
        affordable = memory_limit // 4 // (4 * index.d)
        wanted = max(min(wanted, affordable), MIN_ROWS_PER_LIST * lists)
    return int(min(wanted, count))


def faiss_words(error: BaseException) -> str:
    """FAISS's message without the C++ signature and file name in front."""
    text = " ".join(str(error).split())
    return text.rpartition(".cpp:")[2].partition(": ")[2] or text


def _refuse_early(factory: str, count: int) -> None:
    if not _ALLOWED.fullmatch(factory):
        raise _unknown(factory, 0, "it holds characters that no factory string has")
    if re.search(r"(^|,|\()(Flat(L2|IP)Panorama|RefinePanorama)", factory):
        raise _unknown(factory, 0, "it cannot be read back from its file: use Flat instead of Panorama")
    if "IDMap" in factory:
        raise _id_map(factory)
    sizes = [list_count(text, unit) for text, unit in re.findall(r"(?:IVF|Residual)(\d{1,30})([kM]?)", factory)]
    sizes += [4 ** min(int(text), 64) for text in re.findall(r"IMI2x(\d{1,30})", factory)]
    for lists in sizes:
        if lists > count or lists > MAX_LISTS:
            nearest = 2 ** max(0, round(math.log2(4 * math.sqrt(count))))
            raise BadSpec(
                "TooManyLists",
                f"{factory!r} asks for {lists} lists, but the source has {count} rows",
                field=FIELD,
                remedy=f"Each list needs {MIN_ROWS_PER_LIST} rows or more; {nearest} lists suit {count} rows, "
                "and Flat or HNSW32 need none.",
            )
        if not lists:
            raise _unknown(factory, 0, "it asks for 0 lists")
    for text in re.findall(r"(?:PQ|RQ|LSQ|CQ)\d+(?:x\d+)?x(\d{1,30})", factory):
        if 1 << min(int(text), 64) > count:
            raise BadSpec(
                "CannotTrain",
                f"{factory!r} has codes of {text} bits, which need 2^{text} rows to train; the source has {count}",
                field=FIELD,
                remedy="Use fewer bits, for example PQ64x4fs or PQ64.",
            )
    for text in re.findall(r"(?:HNSW|NSG)(\d{1,30})", factory):
        if int(text) > MAX_HNSW_LINKS:
            message = f"{factory!r} asks for {text} links a node; at most {MAX_HNSW_LINKS} are allowed"
            raise BadSpec("TooManyLinks", message, field=FIELD, remedy="HNSW32 suits most data.")
        if int(text) < MIN_LINKS:
            raise _unknown(factory, 0, f"it asks for {text} links a node; {MIN_LINKS} are the least")


def _unknown(factory: str, dimension: int, words: str) -> BadSpec:
    at = f" at dimension {dimension}" if dimension else ""
    return BadSpec(
        "UnknownFactory",
        f"FAISS cannot build {factory!r}{at}: {words[:400]}",
        field=FIELD,
        remedy="Use Auto, or a FAISS factory string such as HNSW32,SQ8 or IVF4096,PQ64x4fs,RFlat.",
    )


def _id_map(factory: str) -> BadSpec:
    remedy = "Remove IDMap: ids of any type are kept beside the index."
    return BadSpec("UnknownFactory", f"{factory!r} uses IDMap", field=FIELD, remedy=remedy)
