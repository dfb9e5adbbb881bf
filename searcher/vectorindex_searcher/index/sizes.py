"""Sizes as people read them. Standard library only: `inspect` needs no FAISS."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes with a unit: 512 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
