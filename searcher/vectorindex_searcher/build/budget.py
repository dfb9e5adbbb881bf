"""How much memory a build takes: the one place of the formula. Checked before the long work, proven by test and bench.

    peak  =  interpreter  +  max(index, training copy)  +  sample  +  two blocks

    index          bytes of index.faiss and of what FAISS computes when it reads it
    training copy  FAISS's residuals while it trains codes; at most the sample. An index is empty then, so it counts
                   only where the index is smaller
    sample         4 x dimension bytes a training row; gone before rows are added
    block          16 MiB of vectors, four times: as stored, as decoded, as float32, as the index takes them

While rows are read, no index is there yet: two blocks of AHEAD_BYTES (dataset/source.py) with their metadata, or one
that is larger (dataset/parquet_file.py), and the batch of metadata.arrow that is gathered (index/rows.py).

Searches among few rows of the index that is measured copy a block's worth of them; an IVF's table of rows, 8 bytes
each, is there meanwhile, in the place that the sample had.

Nothing else in it grows with the source but the index itself. The page cache is not counted: the kernel takes it back.
"""

from __future__ import annotations

from ..dataset.blocks import BLOCK_BYTES
from ..errors import BadSpec

INTERPRETER_BYTES = 160 << 20
"""Resident size of Python with FAISS, Arrow, NumPy and boto3 (measured: 125 MiB), and what they keep to work with."""
COPIES = 4
MEMORY_FIELD = "spec.build.resources.limits.memory"


def block_cost(block_bytes: int = BLOCK_BYTES) -> int:
    """Bytes in memory for one block of `block_bytes` of float32 vectors."""
    return COPIES * block_bytes


def sample_bytes(rows: int, dimension: int) -> int:
    """Bytes of a training sample, float32."""
    return 4 * rows * dimension


def peak_bytes(index: int, sample: int, *, block_bytes: int = BLOCK_BYTES) -> int:
    """Upper bound of a CPU build's memory beyond the interpreter, in bytes. index, sample: bytes."""
    return max(index, sample) + sample + 2 * block_cost(block_bytes)


def require(limit: int, index: int, sample: int) -> None:
    """Refuse a build that cannot fit. limit: bytes, 0 for unknown. Raises BadSpec/NotEnoughMemory with what it takes.

    BadSpec and not the exit code of memory that ran out: trying again would fail again, raising the limit helps.
    """
    needed = INTERPRETER_BYTES + peak_bytes(index, sample)
    if limit and needed > limit:
        raise BadSpec(
            "NotEnoughMemory",
            f"the build takes up to {_mib(needed)} MiB (index {_mib(index)}, training sample {_mib(sample)}, "
            f"{_mib(needed - index - sample)} to work with), {MEMORY_FIELD} is {_mib(limit)} MiB",
            field=MEMORY_FIELD,
            remedy=f"Raise {MEMORY_FIELD} to {_mib(needed)}Mi at least, or choose a smaller index.",
        )


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
