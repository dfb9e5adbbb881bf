"""Vectors of texts that were encoded before, kept beside an index's artifacts: a refresh encodes only what is new.

    texts/<encoder>/<sha256>.parquet    a pack: SHA-256 of each text, its vector, whether the text was cut
    texts/<encoder>/probes.parquet      of an endpoint: texts of ours, and what it made of them (texts.py)

A pack is named by its own SHA-256, so one that is damaged is no pack, and its texts are encoded anew. Packs are only a
cache: one that another build has put together with others meanwhile, or that somebody removed, costs time and nothing
else. Memory: 40 bytes a text, 80 for a moment where all keys are put in order, and one pack; the vectors lie on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifact.layout import Layout
from ..storage.store import Store
from ..text.encoder import Vectors

PACK_BYTES = 32 << 20
"""Of the vectors in a pack, about."""
PACK_SECONDS = 120.0
"""What a build that is killed may lose."""
MOST_SMALL_PACKS = 32
"""Small ones beyond that are put together: a refresh adds one each time."""
_KEY_BYTES = 32
_log = logging.getLogger(__name__)

Keys = npt.NDArray[np.bytes_]


def keys_of(texts: Sequence[str]) -> Keys:
    """SHA-256 of each text: S32 [n]."""
    return np.array([hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts], "S32")


class _Places:
    """Where in a file the vector of each key is. Keys lie in runs, in order, and a run is twice as long as the next or
    longer: of keys that come in n blocks, each is put in order about log(n) times, and looked up in as many runs."""

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, npt.NDArray[np.int64]]] = []

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The place of each key, [n]; -1: not known."""
        found = np.full(len(keys), -1, np.int64)
        for held, places in self._runs:
            at = np.minimum(np.searchsorted(held, keys), len(held) - 1)
            same = held[at] == keys
            found[same] = places[at[same]]
        return found

    def add(self, keys: Keys, first: int) -> None:
        """Different keys that are not known, one or more; they lie from place `first` on."""
        at, size = len(self._runs), len(keys)
        while at and len(self._runs[at - 1][0]) < 2 * size:
            at -= 1
            size += len(self._runs[at][0])
        places = np.concatenate([*(run[1] for run in self._runs[at:]), np.arange(first, first + len(keys))])
        keys = np.concatenate([*(run[0] for run in self._runs[at:]), keys])
        del self._runs[at:]  # before the next copy: two are the most in memory
        order = np.argsort(keys, kind="stable")  # a merge: the runs are in order
        keys = keys[order]
        self._runs.append((keys, places[order]))


class TextCache:
    """The packs of one encoder. One thread uses it; `close` removes its file, and stores nothing."""

    def __init__(self, store: Store, layout: Layout, encoder: str, dimension: int, folder: Path) -> None:
        """`encoder`: names it, and what it makes of a text (texts.py). `folder`: for its file of vectors. Reads all
        packs. Raises StoreUnavailable."""
        self._store, self._layout, self._encoder, self._dimension = store, layout, encoder, dimension
        self._row = 4 * dimension + 1
        self._path = folder / "texts.cache"
        self._file = self._path.open("w+b")
        self._places = _Places()
        self._count = 0
        self._new: list[bytes] = []
        """Keys that are in the file and in no pack yet, in its order."""
        self._since = time.monotonic()
        self._read()

    def __len__(self) -> int:
        return self._count

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Vectors, npt.NDArray[np.bool_]]:
        """Which of the keys are known, [n]; of those their vectors, [k, d], and whether their text was cut, [k]."""
        rows = self._places.find(keys)
        known = rows >= 0
        table = self._rows(rows[known])
        vectors = np.ascontiguousarray(table[:, :-1]).view(np.float32).reshape(-1, self._dimension)
        return known, vectors, table[:, -1] > 0

    def add(self, keys: Keys, vectors: Vectors, cut: npt.NDArray[np.bool_]) -> bool:
        """Keep what was encoded: different keys that are not known. True: it is time to `flush`."""
        self._append(keys, vectors, cut)
        self._new += [key.ljust(_KEY_BYTES, b"\0") for key in keys.tolist()]
        full = len(self._new) * 4 * self._dimension >= PACK_BYTES
        return full or time.monotonic() - self._since >= PACK_SECONDS

    def flush(self) -> None:
        """Store what is new as a pack. Raises StoreUnavailable."""
        self._since = time.monotonic()
        if not self._new:
            return
        first = self._count - len(self._new)
        data = self._read_rows(first, len(self._new))
        self._put(self._new, np.frombuffer(data, np.uint8).reshape(-1, self._row))
        self._new = []

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _rows(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The rows of the file at these places, uint8 [k, row]. They are read in the order of the file, and what lies
        side by side at once; what lies between two of them costs more to copy than one more read."""
        wanted, back = np.unique(places, return_inverse=True)
        begins = np.flatnonzero(np.diff(wanted, prepend=-2) > 1)
        lengths = np.diff(begins, append=len(wanted))
        data = b"".join(map(self._read_rows, wanted[begins].tolist(), lengths.tolist()))
        return np.frombuffer(data, np.uint8).reshape(-1, self._row)[back]

    def _read_rows(self, first: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count * self._row, first * self._row)

    # ------------------------------------------------------------ packs

    def _append(self, keys: Keys, vectors: Vectors, cut: npt.NDArray[np.bool_]) -> None:
        if not len(keys):  # all of a pack was in others
            return
        rows = np.empty((len(keys), self._row), np.uint8)
        rows[:, :-1] = np.ascontiguousarray(vectors, np.float32).view(np.uint8).reshape(len(keys), -1)
        rows[:, -1] = cut
        self._file.seek(self._count * self._row)
        self._file.write(rows.tobytes())
        self._file.flush()
        self._places.add(keys, self._count)
        self._count += len(keys)

    def _put(self, keys: Sequence[bytes], rows: npt.NDArray[np.uint8]) -> str:
        """Write a pack; its key in the store."""
        flat = pa.array(np.ascontiguousarray(rows[:, :-1]).view(np.float32).ravel())
        table = pa.table(
            {
                "key": pa.array(keys, pa.binary(_KEY_BYTES)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, self._dimension),
                "cut": pa.array(rows[:, -1] > 0),
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none")  # vectors do not shrink
        data = bytes(sink.getvalue().to_pybytes())
        key = self._layout.texts(self._encoder, f"{hashlib.sha256(data).hexdigest()}.parquet")
        self._store.put(key, data)
        return key

    def _read(self) -> None:
        small: list[tuple[str, Keys]] = []
        found = sorted(self._store.list(self._layout.texts(self._encoder)), key=lambda item: item.key)
        for item in found:
            name = item.key.rsplit("/", 1)[-1].removesuffix(".parquet")
            if len(name) != 2 * _KEY_BYTES:
                continue
            keys = self._take(item.key, name)
            if keys is not None and item.size < PACK_BYTES // 2:
                small.append((item.key, keys))
        if len(small) > MOST_SMALL_PACKS:
            self._put_together(small)
        if found:
            _log.info("texts that were encoded before", extra={"texts": self._count, "packs": len(found)})

    def _take(self, key: str, sha256: str) -> Keys | None:
        """What is new of a pack; None where it is none of ours, or gone."""
        try:
            data = self._store.read(key)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise pa.ArrowInvalid("its SHA-256 is another one")
            table = pq.read_table(pa.BufferReader(data)).combine_chunks()
            keys = np.array(table.column("key").to_pylist(), "S32")
            vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
            cut = table.column("cut").to_numpy()
            if vectors.shape[1] != self._dimension:
                raise pa.ArrowInvalid(f"its vectors have {vectors.shape[1]} dimensions")
        except FileNotFoundError:
            return None
        except (pa.ArrowException, KeyError, ValueError) as error:
            _log.warning("a pack of texts is left out", extra={"object": self._store.describe(key), "why": str(error)})
            return None
        keys, first = np.unique(keys, return_index=True)
        fresh = self._places.find(keys) < 0
        self._append(keys[fresh], vectors[first[fresh]], cut[first[fresh]])
        return keys

    def _put_together(self, small: list[tuple[str, Keys]]) -> None:
        """Write the small packs as few; the old ones go when the new ones are there."""
        keys = np.unique(np.concatenate([keys for _, keys in small]))
        step = max(1, PACK_BYTES // (4 * self._dimension))
        made = set()
        for start in range(0, len(keys), step):
            some = keys[start : start + step]
            _, vectors, cut = self.find(some)
            rows = np.concatenate([vectors.view(np.uint8).reshape(len(some), -1), cut[:, None]], axis=1)
            made.add(self._put([key.ljust(_KEY_BYTES, b"\0") for key in some.tolist()], rows.astype(np.uint8)))
        self._store.delete_many([key for key, _ in small if key not in made])
