"""Beat's heart: its last tick.

A beat that hung for days looked healthy to whoever asked whether its process
was there.  It ticks at least every ten seconds, whatever is due.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tasks import wiring
from tasks.heart import Heart
from tasks.ticks import LedgerScheduler

TICK_S = 10.0
"""The longest sleep between two ticks."""


class BeatingScheduler(LedgerScheduler):
    """The scheduler that claims its ticks in the ledger, with a heart."""

    @cached_property
    def heart(self) -> Heart:
        """Made at the first tick: Celery makes schedulers that never tick, to print them."""
        return Heart("beat", wiring.settings())

    def setup_schedule(self) -> None:
        """Publish with one retry: a tick must not wait half a minute for a broker that hangs."""
        policy = self.app.conf.task_publish_retry_policy
        self.app.conf.task_publish_retry_policy = {**policy, "max_retries": 1}
        super().setup_schedule()

    def tick(self, *arguments: Any, **options: Any) -> float:
        """One tick; returns the seconds until the next."""
        self.heart.beat()
        return super().tick(*arguments, **options)

    def apply_entry(self, *arguments: Any, **options: Any) -> None:
        """Publish one entry: after the ledger's answer, the broker's has its own time."""
        self.heart.beat()
        super().apply_entry(*arguments, **options)

    def close(self) -> None:
        """Beat stops as it should."""
        super().close()
        if "heart" in self.__dict__:
            self.heart.stop()

    def _ensure_connected(self) -> Any:
        """Wait for the broker as Celery does, and beat at every turn of the wait."""
        connection: Any = self.connection
        ensure = connection.ensure_connection

        def beating(*arguments: Any) -> Any:
            return ensure(*arguments, callback=lambda: self.heart.beat(waits_for="the broker"))

        connection.ensure_connection = beating
        return super()._ensure_connected()  # type: ignore[misc]  # not in the library's types
