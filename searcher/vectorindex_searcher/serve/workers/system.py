"""What several search processes need of the system, asked before any of them is made."""

from __future__ import annotations

import os
import socket
import sys

from ... import contract
from ...errors import BadSpec

_NEEDED = ((os, "fork"), (os, "memfd_create"), (socket, "SCM_RIGHTS"))
"""To share what was loaded, to hand on what no message holds, and to hand on connections."""


def check_system() -> None:
    """Raises BadSpec where a pod can only have one process. Everything else of a searcher may work there."""
    lacking = [] if sys.platform == "linux" else ["Linux"]
    lacking += [f"{module.__name__}.{name}" for module, name in _NEEDED if not hasattr(module, name)]
    if lacking:
        raise BadSpec(
            "BadSetting",
            f"this system ({sys.platform}) lacks what several search processes need: {', '.join(lacking)}",
            field=contract.PROCESSES_ENV,
            remedy=f"Leave {contract.PROCESSES_ENV} out: one process answers with as many threads as there are cores.",
        )
