"""HDF5 objects: one contiguous dataset of vectors, as in ann-benchmarks files (`train`; `test` for queries). No ids.

The HDF5 library only finds the dataset, in a process of its own (hdf5_probe.py); the rows are read here by ranges.
"""

from __future__ import annotations

import contextlib
import json
import subprocess  # of our own program, with an argument list
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..contract import Columns
from ..errors import BadData, BadSpec
from ..storage.store import Store
from .blocks import Block, Header
from .matrix import DTYPES, Matrix, bad_type, check_matrix, matrix_blocks, matrix_header
from .objects import ListedObject
from .reader import Format, refuse_columns

VECTORS = "train"
QUERIES = "test"
PROBE_BYTES = 64 << 20
"""A probe that asks for more than this, or more often than PROBE_READS, follows a damaged file in circles."""
PROBE_READS = 4096
PROBE_SECONDS = 120.0
GAVE_UP = "the HDF5 library gave up on it"
_PROBE = Path(__file__).with_name("hdf5_probe.py")


def _probe(store: Store, item: ListedObject, names: list[str]) -> dict[str, Any]:
    """What the probe says of the first of `names` that is there. Raises BadData/CorruptFile, and as the store does."""
    environment = {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    command = [sys.executable, "-I", str(_PROBE), str(item.size), *names]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as probe:
        assert probe.stdin is not None
        assert probe.stdout is not None
        # It has limits of its own; this ends one that waits for nothing.
        clock = threading.Timer(PROBE_SECONDS, probe.kill)
        clock.start()
        try:
            return _converse(store, item, probe.stdin, probe.stdout)
        except BrokenPipeError:
            raise _corrupt(item, GAVE_UP) from None
        finally:
            clock.cancel()
            probe.kill()
            with contextlib.suppress(BrokenPipeError):
                probe.stdin.close()


def _converse(store: Store, item: ListedObject, asked: IO[bytes], said: IO[bytes]) -> dict[str, Any]:
    """Answer the probe's reads until it has found the dataset."""
    left = PROBE_BYTES
    for _ in range(PROBE_READS):
        line = said.readline(1 << 16)
        try:
            message: dict[str, Any] = json.loads(line)
            if "dataset" in message:
                return dict(message["dataset"])
            if "error" in message:
                raise _corrupt(item, str(message["error"]))
            offset, length = (int(number) for number in message["read"])
        except (ValueError, TypeError, KeyError):  # nothing at all: it crashed, or met its limits
            raise _corrupt(item, GAVE_UP) from None
        left -= length
        if left < 0 or length < 0 or not 0 <= offset <= item.size:
            break
        data = store.read(item.key, etag=item.etag, offset=offset, length=length)
        asked.write(data.ljust(length, b"\0"))
        asked.flush()
    raise _corrupt(item, "its structure does not end")


def _corrupt(item: ListedObject, why: str) -> BadData:
    message = f"{item.key} is not a complete HDF5 file: {why}"
    return BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")


def _parse(store: Store, item: ListedObject, columns: Columns) -> Matrix:
    """Where the rows are. `columns.vector` names the dataset; left at its default, it is `train`."""
    name = VECTORS if columns.vector == Columns().vector else columns.vector
    found = _probe(store, item, [name])
    if "names" in found:
        raise BadSpec(
            "UnknownColumn",
            f"{item.key} has no dataset {name!r}; it has {', '.join(found['names']) or 'none'}",
            object=item.key,
            field="spec.source.columns.vector",
            remedy="Name one of the existing datasets.",
        )
    where = f"dataset {name!r}"
    if found["outside"]:
        raise bad_type(item, f"{where} lies in another file")
    if found["chunked"]:
        message = f"{item.key} {where} is chunked; only contiguous datasets can be read by ranges"
        remedy = "Run h5repack -l CONTI, or write it with h5py.create_dataset(name, data=array)."
        raise BadData("ChunkedDataset", message, object=item.key, remedy=remedy)
    shape, dtype = found["shape"], found["dtype"]
    if len(shape) != 2 or dtype[1:] not in {np.dtype(name).str[1:] for name in DTYPES}:
        raise bad_type(item, f"{where} has shape {tuple(shape)} and type {dtype}")
    if shape[0] and found["offset"] is None:
        raise _corrupt(item, f"{where} was never written")
    return check_matrix(item, Matrix(shape[0], shape[1], np.dtype(dtype), found["offset"] or 0), exact=False)


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """The header of an object; None without rows. Raises BadSpec/UnknownColumn, BadData."""
    refuse_columns(item, FORMAT.name, columns)
    return matrix_header(_parse(store, item, columns), item, columns)


def read_blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:
    """The rows of an object in order, by ranges. Raises SourceChanged, BadData."""
    return matrix_blocks(store, item, _parse(store, item, columns), header)


FORMAT = Format(name="HDF5", suffixes=(".hdf5", ".h5"), header=read_header, blocks=read_blocks, query_vectors=QUERIES)
