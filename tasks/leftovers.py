"""Daily: what killed workers left half written in the artifact folder is deleted."""

from __future__ import annotations

from datetime import timedelta

import structlog

from tasks import wiring
from tasks.app import SWEEP_LEFTOVERS, app

log = structlog.get_logger("tasks.leftovers")

SURELY_ENDED = timedelta(days=1)
"""No put lives longer than its task, and no task nearly so long."""


@app.task(name=SWEEP_LEFTOVERS)
def sweep_leftovers() -> dict[str, int]:
    """Delete unfinished artifacts older than a day: ``swept``.  Raises ArtifactsUnavailable.

    Safe to kill and to run twice at once: each leftover is deleted by itself.
    """
    parts = wiring.current()
    swept = parts.artifacts.sweep_leftovers(parts.clock() - SURELY_ENDED)
    log.info("leftovers_swept", swept=swept)
    return {"swept": swept}
