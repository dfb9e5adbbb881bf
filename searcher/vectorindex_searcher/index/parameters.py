"""Search parameters of a FAISS index: which there are, their limits, and a SearchParameters object for one call.

Never touches the index itself, so calls with different parameters may run at once.
Names: nprobe, efSearch, k_factor; max_codes (inverted multi-index); and those of a coarse quantizer that is itself an
approximate index, with `quantizer_` in front (quantizer_efSearch, quantizer_nprobe, quantizer_k_factor). FAISS has two
more that do not travel with a call and are left alone: search_L of NSG, and ht (polysemous codes, not trained here).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from .binding import faiss

MAX_EF_SEARCH = 4096
MAX_K_FACTOR = 256
MAX_CODES = (1 << 31) - 1
_QUANTIZER = "quantizer_"


def layers(index: Any) -> Iterator[Any]:
    """The index and what it wraps, outermost first: refine and pre-transform layers, then the index that searches."""
    while True:
        index = faiss.downcast_index(index)
        yield index
        if isinstance(index, faiss.IndexRefine):
            index = index.base_index
        elif isinstance(index, faiss.IndexPreTransform):
            index = index.index
        else:
            return


def index_type(index: Any) -> str:
    """Class names of the layers, outermost first, joined by a slash."""
    return "/".join(type(layer).__name__ for layer in layers(index))


EXACT_TYPES = ("IndexFlat", "IndexFlatL2", "IndexFlatIP")
"""Kinds of index that find every neighbour, whatever they hold and whatever is asked."""


def is_exact(index: Any) -> bool:
    """Whether the kind of index finds every neighbour."""
    return index_type(index) in EXACT_TYPES


TELL_EXACT_SCORES = (*EXACT_TYPES, "IndexHNSWFlat", "IndexIVFFlat", "IndexRefineFlat")
"""Outermost layers that hold the vectors as they are: whatever they find, its score is exact."""


def tells_exact_scores(kind: str) -> bool:
    """Whether an index of this kind (as `index_type` says it) tells exact scores, to the last digits of float32."""
    return kind.partition("/")[0] in TELL_EXACT_SCORES


def parameter_limits(index: Any) -> dict[str, tuple[int, int]]:
    """Name -> (least, greatest) of each parameter a search of this index takes. Empty: no choice (Flat, PQ)."""
    limits: dict[str, tuple[int, int]] = {}
    for layer in layers(index):
        if isinstance(layer, faiss.IndexRefine):
            limits["k_factor"] = (1, MAX_K_FACTOR)
        elif isinstance(layer, faiss.IndexIVF):
            limits["nprobe"] = (1, layer.nlist)
            if isinstance(faiss.downcast_index(layer.quantizer), faiss.MultiIndexQuantizer):
                limits["max_codes"] = (0, MAX_CODES)
            else:
                inner = parameter_limits(layer.quantizer)
                limits |= {f"{_QUANTIZER}{name}": limit for name, limit in inner.items()}
        elif isinstance(layer, faiss.IndexHNSW):
            limits["efSearch"] = (1, MAX_EF_SEARCH)
    return limits


def effort_parameter(names: Collection[str]) -> str | None:
    """Which of these parameters says how much of the index a search looks at; None where there is no choice."""
    return next((name for name in ("nprobe", "efSearch") if name in names), None)


def faiss_ladders(index: Any) -> dict[str, tuple[int, ...]]:
    """Values worth trying of each parameter, rising in effort, by FAISS's own faiss.ParameterSpace.

    Only names of `parameter_limits`, and only values within them. 0 of max_codes means all: it comes last.
    """
    space = faiss.ParameterSpace()
    space.initialize(index)
    limits, ranges = parameter_limits(index), space.parameter_ranges
    parameter_grid: dict[str, tuple[int, ...]] = {}
    for number in range(ranges.size()):
        one = ranges.at(number)
        name = one.name.replace("k_factor_rf", "k_factor")
        if name not in limits:
            continue
        values = one.values  # belongs to `one`, which must live while it is read
        found = [int(value) for value in faiss.vector_to_array(values) if np.isfinite(value)]
        least, most = limits[name]
        inside = [value for value in found if max(1, least) <= value <= most]
        parameter_grid[name] = (*inside, 0) if name == "max_codes" else tuple(inside)
    return parameter_grid


def takes_selector(index: Any) -> bool:
    """Whether FAISS can restrict a search of this index to some rows (an IDSelector).

    PQ, NSG, LSH and lists of additive codes (RQ, LSQ), of two codes (PQ16+16) or of hashes cannot.
    """
    *_, innermost = layers(index)
    if isinstance(innermost, faiss.IndexIVFAdditiveQuantizer | faiss.IndexIVFPQR | faiss.IndexIVFSpectralHash):
        return False
    kinds = (faiss.IndexFlat, faiss.IndexIVF, faiss.IndexHNSW, faiss.IndexScalarQuantizer, faiss.IndexRaBitQ)
    return isinstance(innermost, kinds)


def search_parameters(index: Any, params: Mapping[str, int], selector: Any = None) -> Any:
    """A faiss.SearchParameters for `params`, or None when the index takes none and there is no selector.

    `selector`: a faiss.IDSelector that restricts the rows; it must outlive the search.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(index.base_index, params, selector)
        return faiss.IndexRefineSearchParameters(k_factor=params.get("k_factor", 1), base_index_params=inner)
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(index.index, params, selector)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return _ivf_parameters(index, params, selector)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=params.get("efSearch", index.hnsw.efSearch), sel=selector)
    return None if selector is None else faiss.SearchParameters(sel=selector)


def _ivf_parameters(index: Any, params: Mapping[str, int], selector: Any) -> Any:
    options: dict[str, Any] = {"nprobe": params.get("nprobe", index.nprobe), "sel": selector}
    if "max_codes" in params:
        options["max_codes"] = params["max_codes"]
    of_quantizer = {name.removeprefix(_QUANTIZER): params[name] for name in params if name.startswith(_QUANTIZER)}
    if of_quantizer:
        options["quantizer_params"] = search_parameters(index.quantizer, of_quantizer)
    if isinstance(index, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
        return faiss.IVFRaBitQSearchParameters(qb=index.qb, centered=False, **options)
    return faiss.SearchParametersIVF(**options)
