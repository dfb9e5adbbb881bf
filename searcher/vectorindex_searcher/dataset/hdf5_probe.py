"""A program of its own: find where a dataset of an HDF5 file lies. Run by hdf5.py with pipes, never imported.

The HDF5 library was not written for files of strangers, so it runs here: without credentials, without a network need
(every byte is asked of the parent), with little memory and little time. What it says is checked by the parent again.

    to the parent, a line of JSON each:  {"read": [offset, length]}; at the end {"dataset": {...}} or {"error": "..."}
    from the parent:                     exactly as many bytes as were asked for
"""

from __future__ import annotations

import io
import json
import resource
import sys
from typing import Any

import h5py

MEMORY_BYTES = 1 << 30
CPU_SECONDS = 20


class Asked(io.RawIOBase):
    """The file, as ranges asked of the parent."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, {0: 0, 1: self._position, 2: self._size}[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(0, self._size - self._position))
        if length:
            say({"read": [self._position, length]})
            data = sys.stdin.buffer.read(length)
            length = len(data)
            buffer[:length] = data
            self._position += length
        return length


def say(message: dict[str, Any]) -> None:
    """Send one line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def find(file: Any, names: list[str]) -> dict[str, Any]:
    """The first of `names` that is there: its shape, type and place. Only links inside the file are followed."""
    for name in names:
        if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset):
            found = file[name]
            outside = found.external is not None or found.is_virtual
            return {
                "name": name,
                "shape": list(found.shape or ()),
                "dtype": found.dtype.str if found.dtype.kind in "fiu" else str(found.dtype),
                "chunked": found.chunks is not None,
                "outside": outside,
                "offset": None if outside or found.chunks is not None else found.id.get_offset(),
            }
    return {"names": [name for name in file if len(name) <= 128][:50]}


def main(size: int, names: list[str]) -> None:
    """Answer with one line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with h5py.File(io.BufferedReader(Asked(size), 1 << 16), "r") as file:
            answer: dict[str, Any] = {"dataset": find(file, names)}
    except Exception as error:  # the library raises whatever it likes about a damaged file
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    say(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
