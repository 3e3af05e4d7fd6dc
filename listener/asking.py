"""Several questions at once, each with a thread and a time of its own.

A part that hangs hides none of the others, and its thread keeps no process from
ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from schemas.errors import ScanheraldError
from schemas.health import PartHealth, State

log = structlog.get_logger("listener.asking")


class Question(threading.Thread):
    """One part's check, under way.  ``do`` is what to do where it fails or does not end."""

    def __init__(self, part: str, ask: Callable[[], PartHealth], do: str) -> None:
        super().__init__(name=f"question to {part}", daemon=True)
        self.part = part
        self._ask, self._do = ask, do
        self._began = time.monotonic()
        self._answer: PartHealth | None = None
        self.start()

    def run(self) -> None:
        """Ask; whatever goes wrong is the answer."""
        try:
            found = self._ask()
        except ScanheraldError as error:
            found = PartHealth(self.part, State.DOWN, str(error), self._do)
        except Exception as error:  # of one part, which must not hide the others
            log.exception("health_check_failed", part=self.part)
            said = f"its check failed: {type(error).__name__}: {error}"
            found = PartHealth(self.part, State.DOWN, said, "this is a defect: report it")
        took_ms = round((time.monotonic() - self._began) * 1000, 1)
        self._answer = found._replace(latency_ms=took_ms)

    def answer(self) -> PartHealth:
        """What was found, or that nothing was yet."""
        if self._answer is not None:
            return self._answer
        waited_s = time.monotonic() - self._began
        return PartHealth(
            self.part,
            State.DOWN,
            f"does not answer within {waited_s:.0f} s",
            self._do,
            round(waited_s * 1000, 1),
        )


def wait_for(questions: Sequence[Question], timeout_s: float) -> None:
    """Block until all are answered, or for the timeout at most."""
    give_up = time.monotonic() + timeout_s
    for question in questions:
        question.join(max(0.0, give_up - time.monotonic()))
