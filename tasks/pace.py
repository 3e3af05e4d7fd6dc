"""Whether a delivery may be sent now: an even pace, and no queue behind who does not answer.

Asked in the transaction that leases a try.  What has to wait is put off to a slot
of its own and counts as no try.  Two workers that send to a host which hangs wait
for it together, so at most ``destination_in_flight`` do; the first timeout closes
the host, and until it answers again one send at a time finds out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection

from schemas.errors import ChannelUnavailable, PermanentError, RateLimited, TransientError
from schemas.notifications import ChannelAddress, ChannelKind
from schemas.settings import Settings
from store.pacing import Pace, Slot, close, note_answer, note_silence, reserve
from store.tries import DueDelivery, look_under_way
from tasks.retry import LONGEST_WAIT_S

SLOT_LASTS = timedelta(seconds=10)
"""Who comes later than this to a slot asks for another one, so that what a stopped beat or a full
queue has piled up does not go out in one burst."""

EARLY = timedelta(milliseconds=20)
"""So much before its slot a message is in time: timers and clocks are no finer."""

CROWDED_S = 0.05
"""How far apart come back those who found as many sends under way as there may be."""

LONGEST_SEND_S = 60.0
"""A send that began longer ago has lost its worker, and is not under way."""

HANGS_S = 1.0
"""A send without an answer that held a worker for longer closes its destination at once;"""
PATIENCE = 3
"""quicker ones, such as refused connections, when they are so many in a row."""
FIRST_SILENCE_S = 30.0

PACED = "waits for its turn: more came at once than are sent at once"
SILENT = "waits: its destination did not answer lately"
CROWDED = "waits: others are being sent to the same destination"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a delivery goes, as its pace sees it.  Neither key holds a secret.

    ``key`` has the pace, ``host`` whoever answers for it, or hangs: the same, unless many
    secret URLs lead to one service.  Then nobody else's messages go to ``key``, so what it
    asks of one holds for all.
    """

    key: str
    host: str
    per_s: float
    burst: int
    in_flight: int

    @property
    def own(self) -> bool:
        """Whether its pace is that of one URL."""
        return self.key != self.host


@dataclass(frozen=True, slots=True)
class Turn:
    """When a delivery may be sent: ``wait_until`` then, for ``reason``; None: now.

    ``was_silent``: the destination had no answer the last time.
    """

    wait_until: datetime | None
    reason: str = ""
    was_silent: bool = False


def destination_of(address: ChannelAddress, settings: Settings) -> Destination:
    """The destination of an address: a mail server, a host with its port, or one secret URL."""
    per_s, burst = settings.destination_per_s, settings.destination_burst
    if address.kind is ChannelKind.EMAIL:
        key = f"smtp:{settings.smtp_host}:{settings.smtp_port}"
        return Destination(key, key, per_s, burst, settings.smtp_in_flight)
    if address.kind is ChannelKind.WEBHOOK:
        key = f"http:{_host(address.target)}"
        return Destination(key, key, per_s, burst, settings.destination_in_flight)
    slack = address.kind is ChannelKind.SLACK
    return Destination(
        f"{address.kind.value}:{_digest(address.target)}",
        f"http:{_host(address.target)}" if slack else f"apprise:{_service(address.target)}",
        settings.slack_per_s,
        settings.slack_burst,
        settings.destination_in_flight,
    )


def find_turn(
    connection: Connection,
    delivery: DueDelivery,
    destination: Destination,
    settings: Settings,
    now: datetime,
) -> Turn:
    """Whether a delivery may be sent now, else why and until when it has to wait.

    A slot that it takes is its own: it need not ask again when it comes back in time.
    """
    slot_at = delivery.slot_at
    if slot_at is not None and slot_at > now + EARLY:
        return Turn(slot_at, PACED)  # its message came too soon: clocks differ
    reserved = slot_at is not None and slot_at > now - SLOT_LASTS
    turn = _take(connection, destination.key, destination.per_s, destination.burst, now, reserved)
    # Looked at even where nothing is taken: the lock on its row lets one look at a time.
    there = reserve(connection, Pace(destination.host, 0.0, 1), now) if destination.own else turn
    free_at, opens_at = turn.at, _opens_at(now, turn, there)
    if opens_at is not None and (reserved or opens_at != _opens_at(now, turn)):
        # Its slot lies in the silence.  With all others there it would go at its end, in one burst.
        again = _take(connection, destination.key, destination.per_s, destination.burst, opens_at)
        free_at, reserved = again.at, False
    if not reserved and settings.subscriber_per_min:
        key = f"subscriber:{delivery.subscriber_id}:{delivery.channel.value}"
        per_s, burst = settings.subscriber_per_min / 60, settings.subscriber_burst
        free_at = max(free_at, _take(connection, key, per_s, burst, opens_at or now).at)
    if opens_at is not None:
        return Turn(max(free_at, opens_at), SILENT)
    if free_at > now:
        return Turn(free_at, PACED)
    crowd_ends = _find_crowd(connection, destination, there, settings, now)
    if crowd_ends is not None:
        return Turn(crowd_ends, CROWDED)
    return Turn(None, was_silent=there.failures > 0)


def note_outcome(
    connection: Connection,
    destination: Destination,
    error: PermanentError | TransientError | None,
    *,
    was_silent: bool,
    now: datetime,
    held_s: float,
    settings: Settings,
) -> datetime | None:
    """Learn from a send that took ``held_s``; ``error`` None: it was accepted.

    Returns until when its destination is closed, if it is.
    """
    status_code = getattr(error, "status_code", None)
    if isinstance(error, RateLimited) and destination.own and error.retry_after:
        until = now + timedelta(seconds=min(error.retry_after, LONGEST_WAIT_S))
        close(connection, destination.key, until)
        if was_silent:
            note_answer(connection, destination.host)
        return until
    if isinstance(error, ChannelUnavailable) and status_code is None:

        def closed_until(failures: int) -> datetime | None:
            seconds = silence_s(failures, held_s, settings.silence_max_s)
            return now + timedelta(seconds=seconds) if seconds else None

        return note_silence(connection, destination.host, closed_until)
    if was_silent and (error is None or status_code is not None):
        note_answer(connection, destination.host)
    return None


def silence_s(failures: int, held_s: float, longest_s: float) -> float:
    """How long a destination is left alone after so many failures in a row; 0: not at all."""
    if failures < PATIENCE and held_s < HANGS_S:
        return 0.0
    doublings = min(max(0, failures - PATIENCE), 30)
    return min(longest_s, FIRST_SILENCE_S * 2.0**doublings)


def ahead_s(settings: Settings) -> float:
    """Who waits no longer has a message; the sweep starts the others so long before their turn.

    Each turn comes after some sweep that sees it, and every countdown is below the
    broker's visibility timeout, because fast retries are.
    """
    return min(settings.sweep_interval_s, settings.retry_max_s)


def _opens_at(now: datetime, *slots: Slot) -> datetime | None:
    """Until when nothing is sent to all of them; None where they are open."""
    closed = [slot.closed_until for slot in slots if slot.closed_until is not None]
    return max((until for until in closed if until > now), default=None)


def _take(
    connection: Connection,
    key: str,
    per_s: float,
    burst: int,
    now: datetime,
    reserved: bool = False,
) -> Slot:
    interval_s = 0.0 if reserved or not per_s else 1 / per_s
    return reserve(connection, Pace(key, interval_s, burst), now)


def _find_crowd(
    connection: Connection,
    destination: Destination,
    there: Slot,
    settings: Settings,
    now: datetime,
) -> datetime | None:
    """When to look again for those under way to be through; None: there is room.

    The wait is at least as long as the first of them has taken already, so the longer
    it hangs the fewer come to look.
    """
    most = 1 if there.failures else destination.in_flight
    if not most:
        return None
    lease = timedelta(seconds=settings.delivery_lease_s)  # its end says when a send began
    oldest = timedelta(seconds=min(LONGEST_SEND_S, settings.delivery_lease_s))
    count, first = look_under_way(connection, destination.host, now + lease - oldest)
    if first is None or count < most:
        return None
    apart = 1 / destination.per_s if destination.per_s else 0.0
    spaced = CROWDED_S if destination.own else max(CROWDED_S, apart)
    free = reserve(connection, Pace(destination.host, spaced, 1), now).at
    taken = now - (first - lease)
    free = max(free, now + max(taken, timedelta(seconds=CROWDED_S)))
    if not destination.own:
        return free
    return reserve(connection, Pace(destination.key, apart, 1), free).at


def _service(url: str) -> str:
    """What answers behind an Apprise URL: its scheme, with the host where that is one.

    Of many services the place of the host is taken by a token, which has no dot; a host
    is kept as a digest, in case that some token has.
    """
    scheme = url.partition("://")[0].lower()[:50]
    host = _host(url)
    return f"{scheme}:{_digest(host)}" if "." in host or host.startswith("localhost:") else scheme


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _host(url: str) -> str:
    """Host and port of a URL; of one that cannot be read, nothing: it is refused anyway."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
    except ValueError:
        return ""
    return f"{parts.hostname or ''}:{port}"[:280]
