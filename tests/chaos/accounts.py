"""What an operator of this layer may do: what the chart gives one that watches a single namespace, and nothing more."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any

from chart import render

Json = dict[str, Any]

KINDS = ("ServiceAccount", "Role", "RoleBinding")
_NAMESPACE = "the-namespace"
"""Stands for each in what is rendered once: helm takes a fifth of a second."""


def account(namespace: str) -> tuple[str, list[Json]]:
    """The name of the ServiceAccount, and it with its roles: of a release that watches its own namespace alone."""
    objects: list[Json] = json.loads(_rendered().replace(_NAMESPACE, namespace))
    (name,) = (one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount")
    return name, objects


def signing_key(folder: Path) -> Path:
    """For --internal-key-dir: made below `folder` when it is first asked for, one for all operators there."""
    key = folder / "internal-key" / "key"
    if not key.exists():
        key.parent.mkdir(exist_ok=True)
        draft = key.with_name(f"draft-{secrets.token_hex(4)}")
        draft.write_text(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, key)
    return key.parent


@cache
def _rendered() -> str:
    objects = render(f"watchNamespaces={{{_NAMESPACE}}}", release="chaos", home=_NAMESPACE)
    return json.dumps([one for one in objects if one["kind"] in KINDS])
