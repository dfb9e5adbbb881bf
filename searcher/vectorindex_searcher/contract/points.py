"""At which operating point the pods of a revision answer. Told on the admin port, signed as leases are.

    POST /v1/point   operator -> pods: PointOrder

An order has no time to live: a pod keeps to it until a later decision comes, or until it ends. So an operator that is
away changes nothing about what users are answered with, and a new pod begins at the default point until it is told.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .model import Model

POINT_PATH = "/v1/point"


class ServingPoint(StrEnum):
    DEFAULT = "Default"
    """What the gate proved: the default point, and those of the segments that have their own."""
    CONSERVATIVE = "Conservative"
    """The manifest's conservative point; of each parameter no less than at the default one."""


class PointOrder(Model):
    """Body of POST /v1/point. The answer is 200 {"pod", "revision", "point"}; 409 where a later decision is known; 404
    of an image that has one point only."""

    point: ServingPoint
    decided_at: Annotated[float, Field(strict=True, ge=0, lt=2**53, allow_inf_nan=False)]
    """Unix seconds, by the clock of who decided. Orders are told apart by it: an earlier one is refused."""
