"""What `build` is asked to make: refusals before a row is read, and the factory string once the rows are staged."""

from __future__ import annotations

import logging
from pathlib import Path

from ..artifact.layout import IDS_FILE, METADATA_FILE, VECTORS_FILE
from ..contract import Effort, IndexSpec, Metric, memory_bytes
from ..errors import BadSpec
from ..index.choose.auto import AUTO, select
from ..index.choose.choice import MEMORY_FIELD, Choice, Goal
from ..index.choose.rehearsal import rehearse
from ..index.factory import ef_construction, make_index
from ..index.parameters import parameter_limits
from ..index.selection.restricted import check_hidable
from ..index.threads import available_cores
from ..index.vectors import VectorFile

PARAMS_FIELD = "spec.index.searchParams"
_log = logging.getLogger(__name__)


def check(spec: IndexSpec, count: int, dimension: int, metric: Metric, *, hides: bool = False) -> None:
    """Refuse what cannot be built, before anything is read. hides: there are deleted ids to leave out of answers.

    Raises BadSpec: UnknownFactory, TooManyLists, UnsupportedIndex ...; MemoryLimitNeedsAuto, SearchParamsNeedFactory,
    UnknownSearchParam, SearchParamOutOfRange, CannotHide.
    """
    if spec.imported is not None:
        _check_beside_import(spec)
        return
    if spec.factory == AUTO:
        if spec.search_params:
            raise BadSpec(
                "SearchParamsNeedFactory",
                f"{PARAMS_FIELD} is {dict(spec.search_params)}, but which names there are depends on what Auto chooses",
                field=PARAMS_FIELD,
                remedy="Name a factory in spec.index.factory, or leave searchParams out: build tunes them.",
            )
        return  # every family of Auto can be restricted
    if spec.objective.memory_limit:
        raise BadSpec(
            "MemoryLimitNeedsAuto",
            f"memoryLimit is {spec.objective.memory_limit}, but the factory is {spec.factory}, not Auto",
            field=MEMORY_FIELD,
            remedy="Use factory Auto, or leave memoryLimit out: a named factory takes the memory it takes.",
        )
    restricts = rehearse(spec.factory, count, dimension, metric)
    if hides:
        check_hidable(restricts, spec.factory)
    limits = parameter_limits(make_index(spec.factory, count, dimension, metric))
    for name, value in spec.search_params.items():
        field = f"{PARAMS_FIELD}.{name}"
        if name not in limits:
            known = ", ".join(limits) or "none"
            message = f"{spec.factory!r} has no search parameter {name!r}"
            raise BadSpec("UnknownSearchParam", message, field=field, remedy=f"It has: {known}.")
        least, most = limits[name]
        if not least <= value <= most:
            message = f"{name} is {value}; {spec.factory!r} takes {least} to {most}"
            raise BadSpec("SearchParamOutOfRange", message, field=field, remedy=f"Use a value from {least} to {most}.")


def _check_beside_import(spec: IndexSpec) -> None:
    """Raises BadSpec/ImportIsBuilt."""
    given = {
        "factory": spec.factory != AUTO,
        "objective.memoryLimit": spec.objective.memory_limit is not None,
        "effort": spec.effort is not None,
        "searchParams": bool(spec.search_params),
    }
    for name in (name for name, said in given.items() if said):
        raise BadSpec(
            "ImportIsBuilt",
            f"spec.index.{name} says how to build, but spec.index.import names an index that is built",
            field=f"spec.index.{name}",
            remedy=f"Leave {name} out, or import out.",
        )


def decide(spec: IndexSpec, folder: Path, metric: Metric, memory: int = 0) -> Choice:
    """The factory string for the staged rows of `folder`; under Auto measured on a sample of them.

    memory: bytes of the pod, 0 for unknown; the sample takes an eighth of it at most.
    """
    if spec.factory != AUTO:
        return Choice(spec.factory, (), "", ef_construction(spec.factory, spec.effort or Effort.NORMAL))
    beside = sum(path.stat().st_size for name in (IDS_FILE, METADATA_FILE) if (path := folder / name).exists())
    limit = memory_bytes(spec.objective.memory_limit) if spec.objective.memory_limit else None
    left = None if limit is None else max(0, limit - beside)
    goal = Goal(spec.objective.recall, spec.objective.minimise, left, spec.effort or Effort.NORMAL)
    with VectorFile(folder / VECTORS_FILE, metric) as vectors:
        choice = select(vectors, goal, available_cores(), working_bytes=memory // 8)
    _log.info(
        "Auto", extra={"factory": choice.factory, "efConstruction": choice.ef_construction, "reason": choice.reason}
    )
    return choice
