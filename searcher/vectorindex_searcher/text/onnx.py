"""A model of sentence-transformers, run by ONNX Runtime on the CPU, as that library would run it.

One thread for each call, and none in the background: whoever wants more calls from more threads, and a process that is
forked shares the weights and runs on. Calls release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .encoder import Encoded, EncoderError, Side, Vectors
from .folder import ModelFolder
from .onnx_file import refuse_external_data
from .runtime import inputs_of, open_session, open_tokenizer, padded, unknown
from .settings import MOST_TOKENS, Pooling, read_settings

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

CALL_TOKENS = 2048
"""Of one call of the model, with padding: so much memory a call takes."""
CALL_SQUARES = MOST_TOKENS**2
"""Of one call: texts times the square of their tokens, which is what attention takes. One text of full length."""
_OUTPUTS = ("last_hidden_state", "token_embeddings")
Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.int64]


class OnnxEncoder:
    """A verified folder, opened."""

    def __init__(self, folder: ModelFolder, prefixes: Mapping[Side, str | None]) -> None:
        """`prefixes`: those that are not None stand in place of the folder's own.

        Raises BadSpec/TextNotInstalled, BadData: EncoderUnsafe, EncoderUnknown.
        """
        self._settings = read_settings(folder)
        prompts = self._settings.prompts
        self.prefixes = {side: prompts[side] if (own := prefixes.get(side)) is None else own for side in Side}
        self.dimension, self.max_tokens = self._settings.dimension, self._settings.max_tokens
        self.nbytes = folder.size
        refuse_external_data(folder.model)
        self._tokenizer, self._pad = open_tokenizer(folder, self.max_tokens)
        self._session = open_session(folder)
        self._inputs = inputs_of(self._session, folder)
        self._output = _output(self._session, folder)
        try:
            # As long as one may be: where memory lacks, it shows now, and never by a user's text.
            self.encode(["a text " * self.max_tokens], Side.QUERY)
        except EncoderError as error:
            raise unknown(folder, folder.model.name, str(error)) from None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """As Encoder. Texts of one length are encoded together."""
        tokens = self._tokenizer.encode_batch([self._prepared(text, side) for text in texts])
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for numbers in _pieces([len(one.ids) for one in tokens]):
            vectors[numbers] = self._run([tokens[number] for number in numbers])
        return Encoded(vectors, tuple(bool(one.overflowing) for one in tokens))

    def close(self) -> None:
        """Nothing: it has no connections."""

    def _prepared(self, text: str, side: Side) -> str:
        """In the order of sentence-transformers: prefix, then without spaces around, then lower case."""
        whole = (self.prefixes[side] + text).strip()
        return whole.lower() if self._settings.lower_case else whole

    def _run(self, tokens: Sequence[tokenizers.Encoding]) -> Vectors:
        """Vectors of texts that go into one call."""
        feeds = padded(tokens, self._pad)
        shape = feeds["input_ids"].shape
        try:
            (found,) = self._session.run([self._output], {name: feeds[name] for name in self._inputs})
        except Exception as error:  # ONNX Runtime has classes of its own for each of its codes
            raise EncoderError(f"the model failed: {' '.join(str(error).split())[:300]}") from None
        hidden = np.asarray(found, np.float32)
        if hidden.shape != (*shape, self.dimension):
            raise EncoderError(f"the model answered the shape {hidden.shape}, not {(*shape, self.dimension)}")
        vectors = _POOLED[self._settings.pooling](hidden, feeds["attention_mask"])
        if self._settings.normalized:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors.astype(np.float32, copy=False)


def _pieces(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the texts of each call: short ones together, as padding costs what tokens cost."""
    piece: list[int] = []
    for number in np.argsort(lengths, kind="stable").tolist():
        texts, tokens = len(piece) + 1, lengths[number]
        if piece and (texts * tokens > CALL_TOKENS or texts * tokens**2 > CALL_SQUARES):
            yield piece
            piece = []
        piece.append(number)
    if piece:
        yield piece


# ---------------------------------------------------------------- pooling


def _sums(hidden: Array, mask: Mask) -> tuple[Array, Array]:
    """Sum of the vectors of tokens [n, d], and how many they are [n, 1]."""
    weights = mask.astype(np.float32)
    return np.einsum("ntd,nt->nd", hidden, weights), np.maximum(weights.sum(1, keepdims=True), 1e-9)


def _mean(hidden: Array, mask: Mask) -> Array:
    total, count = _sums(hidden, mask)
    return total / count


def _mean_sqrt(hidden: Array, mask: Mask) -> Array:
    total, count = _sums(hidden, mask)
    return np.asarray(total / np.sqrt(count), np.float32)


def _weighted(hidden: Array, mask: Mask) -> Array:
    """Later tokens weigh more: 1, 2, 3 ..."""
    weights = mask * np.arange(1, mask.shape[1] + 1)
    total = np.einsum("ntd,nt->nd", hidden, weights.astype(np.float32))
    return np.asarray(total / np.maximum(weights.sum(1, keepdims=True), 1), np.float32)


def _largest(hidden: Array, mask: Mask) -> Array:
    found: Array = np.where(mask[:, :, None] > 0, hidden, np.float32(-1e9)).max(1)
    return found


def _last(hidden: Array, mask: Mask) -> Array:
    ends = mask.shape[1] - 1 - np.argmax(mask[:, ::-1] > 0, axis=1)
    found: Array = hidden[np.arange(len(hidden)), ends]
    return found


def _first(hidden: Array, _mask: Mask) -> Array:
    return hidden[:, 0]


_POOLED: Mapping[Pooling, Callable[[Array, Mask], Array]] = {
    Pooling.CLS: _first,
    Pooling.MEAN: _mean,
    Pooling.MAX: _largest,
    Pooling.MEAN_SQRT: _mean_sqrt,
    Pooling.WEIGHTED_MEAN: _weighted,
    Pooling.LAST: _last,
}


def _output(session: onnxruntime.InferenceSession, folder: ModelFolder) -> str:
    """The one with a vector for each token."""
    outputs: dict[str, Any] = {one.name: one for one in session.get_outputs()}
    for name in (*_OUTPUTS, *outputs):
        if name in outputs and len(outputs[name].shape) == 3:
            return name
    problem = f"none of {', '.join(outputs)} has a vector for each token: export it without pooling"
    raise unknown(folder, "its outputs", problem)
