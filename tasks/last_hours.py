"""The figures of the last hours, for the periodic tasks that keep them and for people.

Read in one look at the ledger, and never inside a write: counting a day of a
large ledger takes seconds, in which nobody else could write to SQLite.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas.errors import InvalidSettings
from store import figures, runs
from tasks.wiring import Wiring


def task_figures(parts: Wiring, hours: int) -> dict[str, Any]:
    """Events, runs and reports of the last ``hours``: counts, rates, render times in ms.

    Raises LedgerUnavailable, InvalidSettings for less than an hour.
    """
    now, since = _window(parts, hours)
    with parts.ledger.read() as connection:
        found = figures.activity_since(connection, since)
        oldest = runs.oldest_unsettled(connection)
    ready = sum(made["by_status"].get("ready", 0) for made in found["reports"].values())
    return {
        "taken_at": now.isoformat(),
        "hours": hours,
        **found,
        "per_hour": {
            "events": _rate(sum(found["events"].values()), hours),
            "runs_done": _rate(found["runs"].get("done", 0), hours),
            "reports_ready": _rate(ready, hours),
        },
        "oldest_unfinished_run_s": None
        if oldest is None
        else round((now - oldest).total_seconds(), 1),
    }


def notification_figures(parts: Wiring, hours: int) -> dict[str, Any]:
    """Deliveries and attempts of the last ``hours`` by channel, with send times in ms.

    ``success_rate`` is that of the attempts, from 0 to 1; None where there was none.
    Raises as ``task_figures``.
    """
    now, since = _window(parts, hours)
    with parts.ledger.read() as connection:
        found = figures.delivery_figures(connection, since)
        overdue = figures.overdue_deliveries(connection, now - timedelta(minutes=5))
    sent, attempts = found["attempts"].get("sent", 0), sum(found["attempts"].values())
    return {
        "taken_at": now.isoformat(),
        "hours": hours,
        **found,
        "per_hour": {
            "deliveries": _rate(
                sum(sum(by_state.values()) for by_state in found["deliveries"].values()), hours
            ),
            "sent": _rate(sent, hours),
        },
        "success_rate": round(sent / attempts, 4) if attempts else None,
        "overdue": overdue,
    }


def _window(parts: Wiring, hours: int) -> tuple[datetime, datetime]:
    if hours < 1:
        raise InvalidSettings(f"hours is {hours}; it must be 1 or more")
    now = parts.clock()
    return now, now - timedelta(hours=hours)


def _rate(count: int, hours: int) -> float:
    return round(count / hours, 2)
