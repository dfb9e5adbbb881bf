"""Search parameters of a FAISS index: which there are, their limits, and a SearchParameters object for one call.

Never touches the index itself, so calls with different parameters may run at once.
Names: nprobe, efSearch, k_factor, and quantizer_efSearch (an IVF whose coarse quantizer is an HNSW).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .binding import faiss

MAX_EF_SEARCH = 4096
MAX_K_FACTOR = 256


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


def parameter_limits(index: Any) -> dict[str, tuple[int, int]]:
    """Name -> (least, greatest) of each parameter a search of this index takes. Empty: no choice (Flat, PQ)."""
    limits: dict[str, tuple[int, int]] = {}
    for layer in layers(index):
        if isinstance(layer, faiss.IndexRefine):
            limits["k_factor"] = (1, MAX_K_FACTOR)
        elif isinstance(layer, faiss.IndexIVF):
            limits["nprobe"] = (1, layer.nlist)
            if isinstance(faiss.downcast_index(layer.quantizer), faiss.IndexHNSW):
                limits["quantizer_efSearch"] = (1, MAX_EF_SEARCH)
        elif isinstance(layer, faiss.IndexHNSW):
            limits["efSearch"] = (1, MAX_EF_SEARCH)
    return limits


def takes_selector(index: Any) -> bool:
    """Whether FAISS can restrict a search of this index to some rows (an IDSelector); PQ, NSG and LSH cannot."""
    *_, innermost = layers(index)
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
    if "quantizer_efSearch" in params:
        options["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=params["quantizer_efSearch"])
    if isinstance(index, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
        return faiss.IVFRaBitQSearchParameters(qb=index.qb, centered=False, **options)
    return faiss.SearchParametersIVF(**options)
