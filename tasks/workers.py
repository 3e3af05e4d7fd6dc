"""Which workers serve which queue, asked of the workers themselves."""

from __future__ import annotations

from tasks.app import QUEUES, app
from tasks.publishing import broker_faults

ANSWER_S = 1.0
"""How long workers may take: the main process answers, however busy its pool is.

Of a solo worker the pool is the main process: at work it does not answer."""


def count_workers() -> dict[str, int]:
    """Workers by queue, 0 included.  Blocks for ``ANSWER_S``.  Raises BrokerUnavailable."""
    with broker_faults():
        answers = app.control.inspect(timeout=ANSWER_S).active_queues() or {}
    served = [{queue["name"] for queue in queues} for queues in answers.values()]
    return {name: sum(name in names for names in served) for name in QUEUES}
