"""Places and names of flags: where what is read and written lies, and which artifact is meant."""

from __future__ import annotations

import argparse
import re
from typing import Any

from ..artifact.layout import MANIFEST_FILE, PLAN_FILE, Layout
from ..contract import TASK_ENV, Identity, Location
from ..errors import BadSpec
from ..storage.store import Role, open_store, parse_location


def identity(options: argparse.Namespace) -> Identity:
    """--namespace and --name. Raises BadSpec for what names no folder, --digest included."""
    for flag in ("namespace", "name", "digest"):
        value = getattr(options, flag, "")
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", value):
            remedy = "It names a folder: take letters, digits, dots, dashes and underscores."
            raise BadSpec("BadFlag", f"--{flag} {value!r} is no name", field=f"--{flag}", remedy=remedy)
    return Identity(namespace=options.namespace, name=options.name)


def location(options: argparse.Namespace, flag: str) -> Location:
    """The place of a flag. Raises BadSpec where it is missing."""
    text = getattr(options, flag)
    if not text:
        remedy = "Give it; --help has all flags."
        raise BadSpec("MissingFlag", f"--{flag} is needed (or a task in {TASK_ENV})", field=f"--{flag}", remedy=remedy)
    # What is written to needs credentials, whoever may read the source.
    public = flag == "source" or options.verb in ("serve", "inspect", "encoder")
    return parse_location(text, **reached(options, public=public))


def reached(options: argparse.Namespace, *, public: bool = True) -> dict[str, Any]:
    """How buckets are reached. `public`: whether --anonymous is about this one."""
    anonymous = True if public and options.anonymous else None
    return {"endpoint": options.endpoint, "region": options.region, "anonymous": anonymous}


def queries(options: argparse.Namespace) -> Location | None:
    """--queries."""
    return parse_location(options.queries, **reached(options)) if options.queries else None


def tombstones(options: argparse.Namespace) -> Location | None:
    """--tombstones."""
    return parse_location(options.tombstones, **reached(options)) if options.tombstones else None


def fresh(options: argparse.Namespace) -> Location | None:
    """--fresh."""
    return parse_location(options.fresh, **reached(options)) if options.fresh else None


def only_digest(options: argparse.Namespace, *, planned: bool = False) -> str:
    """The digest of the flag, or the one there is. planned: a plan is enough, with nothing published yet.

    Raises BadSpec when there is none, another one, or several.
    """
    store = open_store(location(options, "artifact"), Role.ARTIFACTS)
    layout = Layout(store.prefix, identity(options))
    base, name = layout.base, PLAN_FILE if planned else MANIFEST_FILE
    owned = [layout.parse(item.key) for item in store.list(base) if item.key.endswith(f"/{name}")]
    found = sorted(one.digest for one in owned if one is not None and one.shard is None)
    known = f"Give --digest: {' '.join(found[:20])}"
    if not found:
        verb = "partition" if planned else "build"
        remedy = f"Give as --artifact what `{verb}` got as --out, and the same --namespace and --name."
        message = f"no artifact is below {store.describe(base)}"
        raise BadSpec("ArtifactNotFound", message, field="--artifact", remedy=remedy)
    if options.digest and options.digest not in found:
        message = f"--digest {options.digest}: there is none below {store.describe(base)}"
        raise BadSpec("ArtifactNotFound", message, field="--digest", remedy=known)
    if not options.digest and len(found) > 1:
        message = f"{len(found)} artifacts are below {store.describe(base)}"
        raise BadSpec("AmbiguousArtifact", message, field="--digest", remedy=known)
    return str(options.digest or found[0])
