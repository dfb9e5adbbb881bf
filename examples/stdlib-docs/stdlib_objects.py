"""Walks the standard library and returns its documented objects. Nothing but the standard library is used."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

SKIPPED = {
    # side effects, tests, generated tables, tools nobody searches for, shims that setuptools replaces
    "antigravity", "this", "idlelib", "test", "turtledemo", "lib2to3", "distutils", "encodings", "pydoc_data", "msilib",
}  # fmt: skip
ALIASES = {"ntpath", "posixpath", "genericpath", "posix", "sre_compile", "sre_parse", "sre_constants", "imp"}
TEXT_LENGTH = 400


@dataclass(frozen=True)
class Documented:
    """One documented object: its public name, where it was found, and its cleaned docstring."""

    name: str
    module: str
    kind: str
    doc: str

    @property
    def text(self) -> str:
        return f"{self.name}: {shorten(self.doc, TEXT_LENGTH)}"

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))


def collect() -> list[Documented]:
    """Every documented object once, by the best of its names, in order of name."""
    found = [candidate for module in modules() for candidate in members(module)]
    found.sort(key=lambda item: preference(item[0]))
    seen_names: set[str] = set()
    seen_docs: set[str] = set()
    kept = []
    for documented, _ in found:
        if documented.name not in seen_names and documented.doc not in seen_docs:
            kept.append(documented)
            seen_names.add(documented.name)
            seen_docs.add(documented.doc)
    return sorted(kept, key=lambda documented: documented.name)


def preference(documented: Documented) -> tuple[object, ...]:
    """Public before private, `os.path.join` before `posixpath.join`, short before long."""
    alias = documented.module.split(".")[0] in ALIASES
    return (not documented.public, alias, documented.name.count("."), documented.name)


def modules() -> Iterator[tuple[str, types.ModuleType]]:
    """The public modules that can be imported here, by name; a module for another system is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(sys.stdlib_module_names - SKIPPED):
            if not name.startswith("_"):
                yield from package(name)
        yield "os.path", importlib.import_module("os.path")


def package(name: str) -> Iterator[tuple[str, types.ModuleType]]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    yield name, module
    for info in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda info: info.name):
        if not info.name.startswith("_") and info.name not in ("test", "tests"):
            yield from package(f"{name}.{info.name}")


def members(named: tuple[str, types.ModuleType]) -> Iterator[tuple[Documented, object]]:
    name, module = named
    if name != "os.path":
        yield from documented(name, name, "module", module)
    exported = set(vars(module) if name == "builtins" else getattr(module, "__all__", ()))
    prefix = "" if name == "builtins" else f"{name}."
    for attribute in sorted(exported | set(vars(module))):
        value = getattr(module, attribute, None)
        if attribute in exported or defined_in(value, name):
            if isinstance(value, type):
                yield from class_members(f"{prefix}{attribute}", name, value, {value})
            elif inspect.isroutine(value):
                yield from documented(f"{prefix}{attribute}", name, "function", value)
            elif getattr(value, "__doc__", None) != getattr(type(value), "__doc__", None):  # typing.Optional
                yield from documented(f"{prefix}{attribute}", name, "class", value)


def defined_in(value: object, module: str) -> bool:
    """Defined in the module itself or in its accelerator (`_bisect` for `bisect`)."""
    origin = getattr(value, "__module__", None)
    return origin in (module, f"_{module}", "posix" if module == "os" else module)


def class_members(name: str, module: str, cls: type, above: set[type]) -> Iterator[tuple[Documented, object]]:
    """The class and what it defines, with what it takes from private bases (`_io._IOBase` for `io.IOBase`)."""
    yield from documented(name, module, "class", cls)
    private = [base for base in cls.__mro__[1:] if base.__name__.startswith("_")]
    for owner in [cls, *private]:
        for attribute, value in sorted(vars(owner).items()):
            if attribute in ("__class__", "__doc__"):
                continue
            if isinstance(value, type):
                if value not in above and value.__module__ == cls.__module__:
                    yield from class_members(f"{name}.{attribute}", module, value, above | {value})
            elif not isinstance(value, types.WrapperDescriptorType):  # slots: "Return self+value."
                target = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                if inspect.isroutine(target) or isinstance(target, property) or inspect.isdatadescriptor(target):
                    yield from documented(f"{name}.{attribute}", module, "method", target)


def documented(name: str, module: str, kind: str, value: object) -> Iterator[tuple[Documented, object]]:
    own = vars(value).get("__doc__") if isinstance(value, type) else getattr(value, "__doc__", None)
    if isinstance(own, str):
        doc = prose(own)
        if len(doc) >= 12 and " " in doc and not doc.startswith("Alias for field number"):
            yield Documented(name, module, kind, doc), value


def prose(doc: str) -> str:
    """The docstring without leading signatures, doctests and markup; paragraphs end with a newline."""
    text = re.split(r"^\s*>>> ", without_signatures(inspect.cleandoc(doc)), maxsplit=1, flags=re.MULTILINE)[0]
    text = re.sub(r":[a-z:]+:`~?([^`]*)`", r"\1", text).replace("``", "").replace("`", "")
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return "\n".join(paragraph for paragraph in paragraphs if re.search(r"[a-z]", paragraph))


def without_signatures(text: str) -> str:
    while match := re.match(r"[\w.]+\s?\(", text):
        depth, end = 0, match.end() - 1
        for end in range(match.end() - 1, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        line, _, rest = text[end + 1 :].partition("\n")
        if line.strip() == "":
            text = rest.lstrip()
        elif arrow := re.match(r"\s*(->|--|=|:)+\s*", line):
            said = line[arrow.end() :]
            if len(said.split()) > 3:
                return f"{said}\n{rest}"
            text = rest.lstrip()
        else:
            break
    return text


def shorten(text: str, length: int) -> str:
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    return text[:length].rsplit(" ", 1)[0]
