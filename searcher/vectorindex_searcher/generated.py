"""Files of the repository that are made from the code: `make generate` writes them, `make check` compares them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def write_or_check(prog: str, path: Path, text: str, arguments: Sequence[str] | None = None) -> int:
    """Command line of a program that makes one file: write `text` to it (--write), or tell whether that is what it
    holds (--check). Answers the exit status."""
    parser = argparse.ArgumentParser(prog=prog, description=f"Generate {path.name}.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write it")
    mode.add_argument("--check", action="store_true", help="fail when it differs")
    if parser.parse_args(arguments).write:
        path.write_text(text, encoding="utf-8")
        return 0
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{path} differs from the code: run `make generate`\n")
        return 1
    return 0
