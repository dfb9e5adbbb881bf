"""FAISS without its stubs: those in the wheel lack classes (SearchParametersHNSW) and the keyword arguments that the
Python wrapper adds, so a type checker would refuse correct calls. Import `faiss` from here inside the data plane.
"""

from __future__ import annotations

from typing import Any

import faiss as _faiss

faiss: Any = _faiss
