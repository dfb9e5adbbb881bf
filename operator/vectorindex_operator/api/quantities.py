"""Text forms that Kubernetes users type: durations ("90s", "1h30m"), shares ("2%") and memory quantities ("4Gi")."""

from __future__ import annotations

import re

DURATION_PATTERN = r"^([0-9]{1,6}(ms|s|m|h|d))+$"
PERCENT_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,4})?%$"

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY_UNITS = {
    "": 1, "m": 0.001, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def duration_seconds(text: str) -> float:
    """Seconds of a duration such as "90s" or "1h30m". Raises ValueError for anything else."""
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write for example 90s, 15m or 1h30m")
    return sum(int(n) * _DURATION_UNITS[unit] for n, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", text))


def share(text: str) -> float:
    """The fraction of a percentage: "2%" is 0.02. Raises ValueError for anything else."""
    if not re.fullmatch(PERCENT_PATTERN, text):
        raise ValueError(f"{text!r} is not a percentage: write for example 2% or 0.5%")
    return float(text[:-1]) / 100


def memory_bytes(text: str) -> int:
    """Bytes of a Kubernetes memory quantity such as "4Gi" or "500M". Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", text)
    if not match:
        raise ValueError(f"{text!r} is not a memory quantity: write for example 4Gi or 500M")
    return int(float(match[1]) * _MEMORY_UNITS[match[2] or ""])
