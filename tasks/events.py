"""Worker events, such as Flower shows them, for which no worker's loop ever waits.

Celery sends a worker's own heartbeat event every two seconds from its main loop,
and retries without end while the broker is away: the loop would stand still for
as long.  An event that cannot be sent is kept for later instead.
"""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher


class PromptDispatcher(EventDispatcher):
    """Celery's dispatcher, trying once."""

    def _publish(self, *arguments: Any, **options: Any) -> Any:
        quick = {**options, "retry": False}
        return super()._publish(*arguments, **quick)  # type: ignore[misc]  # not in the types


class PromptEvents(Events):
    """The app's ``events``."""

    dispatcher_cls = "tasks.events:PromptDispatcher"
