"""What a cross-encoder is to those who use one: it reads a query and a text together, and says how well they fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import orjson

from .encoder import EncoderError
from .folder import TOKENIZER_SETTINGS_FILE, ModelFolder
from .onnx_file import refuse_external_data
from .runtime import inputs_of, open_session, open_tokenizer, padded, short, unknown
from .settings import MOST_TOKENS

CALL_TOKENS = 1024
"""Of one call of the model, with padding, unless one pair has more: when time is up, so much at most is still worked
on. It bounds the memory of a call as well."""
TOKEN_CHARACTERS = 8
"""Of a text so many are read for each token that the model takes; what is longer would be cut anyway."""
FEWEST_TOKENS = 8
Logits = npt.NDArray[np.float32]


class Reranker(Protocol):
    """Judges texts by a query. Any thread may ask; what it raises is the fault of the model, never of a text."""

    nbytes: int
    """Of its files."""

    def judge(self, query: str, texts: Sequence[str], until: float) -> Logits | None:
        """A number for each text, higher is better; None once the monotonic time `until` has passed.

        Raises EncoderError."""
        ...


class CrossEncoder:
    """A verified folder, opened: a model of token ids of a pair, with one number for each pair."""

    def __init__(self, folder: ModelFolder, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises BadSpec/TextNotInstalled, BadData: RerankerUnsafe, RerankerUnknown."""
        self.nbytes, self.max_tokens = folder.size, _max_tokens(folder)
        self._clock = clock
        refuse_external_data(folder.model, folder.kind)
        self._tokenizer, self._pad = open_tokenizer(folder, self.max_tokens)
        self._session = open_session(folder)
        self._inputs = inputs_of(self._session, folder)
        self._output = self._session.get_outputs()[0].name
        try:
            # As long as one may be: where memory lacks, it shows now, and never by a user's query.
            self.judge("a text", ["a text " * self.max_tokens], float("inf"))
        except EncoderError as error:
            raise unknown(folder, folder.model.name, str(error)) from None

    def judge(self, query: str, texts: Sequence[str], until: float) -> Logits | None:
        """As Reranker. Pairs of one length are read together; time is looked at between two calls of the model."""
        most = TOKEN_CHARACTERS * self.max_tokens
        tokens = self._tokenizer.encode_batch([(query[:most], text[:most]) for text in texts])
        found = np.empty(len(texts), np.float32)
        for numbers in _calls([len(one.ids) for one in tokens]):
            if self._clock() >= until:
                return None
            feeds = padded([tokens[number] for number in numbers], self._pad)
            try:
                (logits,) = self._session.run([self._output], {name: feeds[name] for name in self._inputs})
            except Exception as error:  # ONNX Runtime has classes of its own for each of its codes
                raise EncoderError(f"the model failed: {short(error)}") from None
            values = np.asarray(logits, np.float32)
            if values.size != len(numbers):
                raise EncoderError(
                    f"the model answered the shape {values.shape} to {len(numbers)} pairs: it needs one label"
                )
            found[numbers] = values.reshape(-1)
        if not np.isfinite(found).all():
            raise EncoderError("the model answered what is no number")
        return found


def _calls(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the pairs of each call, short ones together: padding costs what tokens cost."""
    calls: list[list[int]] = [[]]
    for number in np.argsort(lengths, kind="stable").tolist():
        if calls[-1] and (len(calls[-1]) + 1) * lengths[number] > CALL_TOKENS:
            calls.append([])
        calls[-1].append(number)
    return [call for call in calls if call]


def _max_tokens(folder: ModelFolder) -> int:
    """Of a pair. Raises BadData/RerankerUnknown for what is no number of tokens."""
    data = folder.read(TOKENIZER_SETTINGS_FILE)
    try:
        said = orjson.loads(data)["model_max_length"] if data is not None else MOST_TOKENS
    except (orjson.JSONDecodeError, TypeError):
        raise unknown(folder, TOKENIZER_SETTINGS_FILE, "it is no JSON object") from None
    except KeyError:
        said = MOST_TOKENS
    # Some say 1e30, for a length that nobody knows.
    if type(said) not in (int, float) or not said >= FEWEST_TOKENS:
        raise unknown(folder, TOKENIZER_SETTINGS_FILE, f"model_max_length is {said!r}")
    return int(min(said, MOST_TOKENS))
