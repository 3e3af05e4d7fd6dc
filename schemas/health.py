"""How a part of the service is: the words in which health is told.

Standard library alone: ``scanherald health --live`` has no time for more.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """From best to worst."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


EXIT_STATUS = {State.HEALTHY: 0, State.DEGRADED: 1, State.DOWN: 2}


class PartHealth(NamedTuple):
    """One part: its state, one sentence, and what to do where it is not healthy."""

    part: str
    state: State
    says: str
    do: str = ""
    latency_ms: float = 0.0
    """How long it took to find out."""


def worst(states: Iterable[State]) -> State:
    """The worst of some states; healthy of none."""
    return max(states, key=EXIT_STATUS.__getitem__, default=State.HEALTHY)
