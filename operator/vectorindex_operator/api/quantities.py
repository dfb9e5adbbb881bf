"""Text forms that Kubernetes users type: durations ("90s", "1h30m"), shares ("2%"), memory ("4Gi"), CPU ("1500m")."""

from __future__ import annotations

import re
from fractions import Fraction

DURATION_PATTERN = r"^([0-9]{1,6}(ms|s|m|h|d))+$"
PERCENT_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,4})?%$"

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS: dict[str, int | Fraction] = {
    "": Fraction(1), "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
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
    return _whole(text, "a memory quantity: write for example 4Gi or 500M")


def whole_cores(text: str) -> int:
    """Whole cores of a Kubernetes CPU quantity: 2 of "2", "2.9" and "2900m". Raises ValueError for anything else."""
    return _whole(text, "a CPU quantity: write for example 2 or 500m")


def size_text(count: int) -> str:
    """Bytes, for people: "12.5Mi", "3.40Gi"."""
    return f"{count / 2**20:.1f}Mi" if count < 2**30 else f"{count / 2**30:.2f}Gi"


def amount(text: str) -> Fraction:
    """A Kubernetes quantity of anything: 3/2 of "1500m". Raises ValueError for anything else."""
    return _quantity(str(text), "a quantity: write for example 2, 500m or 4Gi")


def _whole(text: str, wanted: str) -> int:
    return int(_quantity(text, wanted))


def _quantity(text: str, wanted: str) -> Fraction:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", text)
    if not match:
        raise ValueError(f"{text!r} is not {wanted}")
    return Fraction(match[1]) * _UNITS[match[2] or ""]
