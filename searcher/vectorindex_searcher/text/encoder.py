"""What an encoder is to those who use one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Side(Enum):
    """What a text is: models may have another prefix for each."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Texts as vectors."""

    vectors: Vectors
    """float32 [n, d]. Not always numbers that can be searched for: models have texts that they fail at."""
    truncated: tuple[bool, ...]
    """Of each text: whether it had more tokens than the model takes, and only the first ones were encoded."""


class Encoder(Protocol):
    """Turns texts into vectors. Any thread may ask; what it raises is the fault of the model, never of a text."""

    dimension: int
    max_tokens: int
    """Tokens of a text that are encoded, with those that the model adds itself; 0: nobody here knows."""
    nbytes: int
    """Of its files; 0: they are elsewhere."""

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """At least one text. Raises EncoderError, EncoderUnavailableError."""
        ...

    def close(self) -> None:
        """Let go of connections, if it has any; it may be asked again."""
        ...


class EncoderError(Exception):
    """The model gave no usable answer."""


class EncoderUnavailableError(Exception):
    """It cannot be asked now: no fault of the index, nor of a text. `retry_after`: seconds until it is worth a try."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
