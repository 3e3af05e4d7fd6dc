"""Follows an event through our processes, by OpenTelemetry where it is installed and set up.

A trace's context travels in the ledger: RECORD keeps the listener's span as the
event's ``traceparent``, under the scanner's own if there was one, and whatever
works on the event later is a part of the same trace, a sweep's next attempt and
a restarted worker too.  Task messages carry nothing of it.

Spans say which run, format or delivery; never a payload, a domain, an address or
an error's text, which may quote one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Protocol

Attribute = str | int


class SpanKind(StrEnum):
    """OpenTelemetry's kinds, as far as we need them."""

    INTERNAL = "internal"
    CONSUMER = "consumer"
    CLIENT = "client"


class Span(Protocol):
    """One piece of work.  ``traceparent`` is what continues from here, in W3C's form."""

    @property
    def traceparent(self) -> str | None:
        """Of this span; without tracing, of what came before."""

    def end(self, **attributes: Attribute) -> None:
        """The work is done.  A span that is never ended is never seen."""


class Tracer(Protocol):
    """Makes spans of one process.  ``is_on`` is False where they would lead nowhere."""

    is_on: bool

    def begin(
        self,
        name: str,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        at: datetime | None = None,
        **attributes: Attribute,
    ) -> Span:
        """A span that began now or ``at``, below ``parent``; without one, of a new trace."""

    def span(
        self,
        name: str,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        **attributes: Attribute,
    ) -> AbstractContextManager[Span]:
        """A span around a block; an exception that leaves it marks it with its type."""

    def close(self) -> None:
        """Hand over what was not sent yet.  Safe to repeat."""


class NoSpan:
    """Passes the scanner's context through, as it came."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def end(self, **attributes: Attribute) -> None:
        """Nothing."""


class NoTracer:
    """Without tracing.  Costs nothing and imports nothing."""

    is_on = False

    def begin(
        self,
        name: str,  # noqa: ARG002  # the protocol's
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,  # noqa: ARG002  # the protocol's
        *,
        at: datetime | None = None,  # noqa: ARG002  # the protocol's
        **attributes: Attribute,  # noqa: ARG002  # the protocol's
    ) -> Span:
        """Nothing but the parent."""
        return NoSpan(parent)

    @contextmanager
    def span(
        self,
        name: str,  # noqa: ARG002  # the protocol's
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,  # noqa: ARG002  # the protocol's
        **attributes: Attribute,  # noqa: ARG002  # the protocol's
    ) -> Iterator[Span]:
        """Nothing but the parent."""
        yield NoSpan(parent)

    def close(self) -> None:
        """Nothing."""
