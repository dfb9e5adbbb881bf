"""A model's folder: which of its files are read, the SHA-256 that names all of them, and how they get here.

The layout is that of sentence-transformers; a cross-encoder has model and tokenizer alone. What `sha256` in a manifest
is of: for each file that is read, in the order of their names, the line that `sha256sum` prints (its SHA-256, two
spaces, its name, a newline); the SHA-256 of these lines. So no file can be exchanged, and a README or weights for
another runtime beside them are nobody's business. `vectorindex-searcher encoder --model FOLDER` computes it, and so
does `sha256sum NAMES | sha256sum`.

Nothing here opens a file for what it says: that is done when all of them are the right ones.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadData, SourceChanged, SourceMissing
from ..storage.cache import Held, NodeCache
from ..storage.store import Store, join_key

MODEL_FILES = ("model.onnx", "onnx/model.onnx")
"""The first of them that is there."""
TOKENIZER_FILE = "tokenizer.json"
MODULES_FILE = "modules.json"
POOLING_FILE = "1_Pooling/config.json"
SENTENCE_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"
_SETTINGS_BYTES = 1 << 20
MOST_BYTES: Mapping[str, int] = {
    **dict.fromkeys(MODEL_FILES, 2 << 30),
    TOKENIZER_FILE: 64 << 20,
    **dict.fromkeys(
        (MODULES_FILE, POOLING_FILE, SENTENCE_FILE, PROMPTS_FILE, TOKENIZER_SETTINGS_FILE), _SETTINGS_BYTES
    ),
}
"""Of each file that may be read. An ONNX file cannot be larger: its format ends at 2 GiB."""
FIELD = "spec.embedding.encoder.onnx"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model is for: which files of its folder are read, and how people call it."""

    word: str
    """Begins the reasons of its failures, and its name in the node's cache."""
    field: str
    """Where a manifest names it."""
    needed: tuple[str, ...]
    """Besides the ONNX file."""
    optional: tuple[str, ...]
    remedy: str
    """For a folder that lacks one of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files that may be read."""
        return *MODEL_FILES, *self.needed, *self.optional


ENCODER = Kind(
    "Encoder",
    FIELD,
    (TOKENIZER_FILE, MODULES_FILE, POOLING_FILE),
    (SENTENCE_FILE, PROMPTS_FILE),
    "Name a folder of sentence-transformers (modules.json beside 1_Pooling/) with the model as ONNX and its "
    "tokenizer.json.",
)
RERANKER = Kind(
    "Reranker",
    "spec.searcher.rerank.onnx",
    (TOKENIZER_FILE,),
    (TOKENIZER_SETTINGS_FILE,),
    "Name a folder with a cross-encoder as ONNX and its tokenizer.json.",
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose files are known by their names here and are the right ones."""

    path: Path
    names: tuple[str, ...]
    """Of the files that are read, sorted."""
    size: int
    """Of all of them, bytes."""
    kind: Kind = ENCODER

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.path / next(name for name in MODEL_FILES if name in self.names)

    def read(self, name: str) -> bytes | None:
        """A small file; None: there is none."""
        return (self.path / name).read_bytes() if name in self.names else None


def names_read(present: Collection[str], where: str, kind: Kind = ENCODER) -> tuple[str, ...]:
    """Of the files that are there, those that are read, sorted. Raises SourceMissing for one that is needed."""
    model = next((name for name in MODEL_FILES if name in present), None)
    missing = [name for name in kind.needed if name not in present] + ([] if model else [" or ".join(MODEL_FILES)])
    if missing or model is None:
        message = f"{where} lacks {', '.join(missing)}"
        raise SourceMissing(f"{kind.word}Incomplete", message, field=kind.field, remedy=kind.remedy)
    return tuple(sorted((model, *kind.needed, *(name for name in kind.optional if name in present))))


def digest(hashes: Mapping[str, str]) -> str:
    """The SHA-256 of a folder, by name of file and SHA-256 of each (hex)."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def describe(store: Store, kind: Kind = ENCODER) -> tuple[str, Mapping[str, tuple[int, str]]]:
    """The SHA-256 of a folder wherever it is, and size and SHA-256 of each file that is read."""
    found: dict[str, tuple[int, str]] = {}
    for name, (size, etag) in _there(store, kind).items():
        hasher = hashlib.sha256()
        for piece in store.stream(join_key(store.prefix, name), etag=etag):
            hasher.update(piece)
        found[name] = size, hasher.hexdigest()
    return digest({name: sha256 for name, (_, sha256) in found.items()}), found


def fetch(store: Store, sha256: str, cache: NodeCache, root: Path, kind: Kind = ENCODER) -> tuple[ModelFolder, Held]:
    """The folder of that SHA-256 below `root`, fetched unless it is there, in use until `Held.close`.

    Raises BadData/EncoderMismatch for other files than those, SourceMissing, BadData/EncoderTooLarge, StoreUnavailable,
    OSError for a disk that is full. (Reasons of another kind begin with its word.)
    """
    name = f"{kind.word.lower()}-{sha256}"
    there = _there(store, kind) if not (root / name).is_dir() else {}
    held = cache.hold(name, sum(size for size, _ in there.values()))
    try:
        folder = _verified(held.folder, sha256, kind)
        if folder is None:
            with cache.fetching(name):
                # Who waited here finds what another pod of this node has fetched.
                folder = _verified(held.folder, sha256, kind) or _fetch(store, sha256, held.folder, kind)
    except BaseException:
        held.close()
        raise
    return folder, held


def _there(store: Store, kind: Kind) -> dict[str, tuple[int, str]]:
    """Size and ETag of each file that is read. Raises BadData for one that is too large."""
    present = {}
    for name in kind.names:
        most, info = MOST_BYTES[name], store.head(join_key(store.prefix, name))
        if info is None:
            continue
        if info.size > most:
            message = f"{store.describe(info.key)} is {info.size} bytes, at most {most} are read"
            remedy = "Name another model."
            raise BadData(f"{kind.word}TooLarge", message, object=info.key, field=kind.field, remedy=remedy)
        present[name] = info.size, info.etag
    return {name: present[name] for name in names_read(present, store.describe(store.prefix), kind)}


def _verified(path: Path, sha256: str, kind: Kind) -> ModelFolder | None:
    """What is there already, if it is all of it and right."""
    present = [name for name in kind.names if (path / name).is_file()]
    try:
        names = names_read(present, str(path), kind)
    except SourceMissing:
        return None
    size = sum((path / name).stat().st_size for name in names)
    if digest({name: _hash(path / name) for name in names}) != sha256:
        return None
    return ModelFolder(path, names, size, kind)


def _fetch(store: Store, sha256: str, path: Path, kind: Kind) -> ModelFolder:
    """Every file under another name, and under its own when all of them are the right ones."""
    there, hashes, parts = _there(store, kind), {}, {}
    try:
        for name, (size, etag) in there.items():
            part = parts[name] = path / f".{name.replace('/', '-')}.{secrets.token_hex(4)}"
            hashes[name] = _stream(store, join_key(store.prefix, name), etag, size, part)
        found = digest(hashes)
        if found != sha256:
            raise BadData(
                f"{kind.word}Mismatch",
                f"the files of {store.describe(store.prefix)} have the SHA-256 {found}, not {sha256}",
                field=f"{kind.field}.sha256",
                remedy="Put the right files back, or write the SHA-256 of these (`vectorindex-searcher encoder`).",
            )
        for name, part in parts.items():
            target = path / name
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return ModelFolder(path, tuple(sorted(there)), sum(size for size, _ in there.values()), kind)


def _stream(store: Store, key: str, etag: str, size: int, target: Path) -> str:
    """Write an object to a file; its SHA-256. Never more than its size, whatever comes."""
    hasher, left = hashlib.sha256(), size
    with target.open("wb") as file:
        for piece in store.stream(key, etag=etag):
            left -= len(piece)
            if left < 0:
                break
            hasher.update(piece)
            file.write(piece)
    if left:
        raise SourceChanged(store.describe(key))
    return hasher.hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
