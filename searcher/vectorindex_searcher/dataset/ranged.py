"""A stored object as a read-only file that pyarrow can seek in. Every read is a range pinned to the listed etag."""

from __future__ import annotations

import io

from ..storage.store import Store
from .objects import ListedObject


class RangedFile(io.RawIOBase):
    """Reads by ranges; raises what the store raises (SourceChanged ...), also kept in `error`."""

    def __init__(self, store: Store, item: ListedObject) -> None:
        super().__init__()
        self._store, self._item, self._position = store, item, 0
        self.error: Exception | None = None
        """The store's failure. pyarrow may wrap it while it passes through C++."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._item.size}[whence]
        if base + offset < 0:  # a damaged footer can point before the beginning
            raise OSError(f"{self._item.key}: seek to {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._item.size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        if not size:
            return b""
        try:
            data = self._store.read(self._item.key, etag=self._item.etag, offset=self._position, length=size)
        except Exception as error:
            self.error = error
            raise
        self._position += len(data)
        return data
