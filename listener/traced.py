"""The listener's spans: one per event of a batch, kept with the event as its trace's next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from schemas.runs import DecodedEntry
from tasks.tracing import Span, SpanKind, Tracer


def begin_record(
    tracer: Tracer, decoded: Sequence[DecodedEntry], at: datetime
) -> tuple[list[DecodedEntry], list[Span]]:
    """Events that carry the context of their span, and the spans, to be ended after the commit.

    Where tracing is off, the events as they came.
    """
    if not tracer.is_on:
        return list(decoded), []
    spans = [
        tracer.begin(
            f"record {item.event.type}",
            item.event.traceparent,
            SpanKind.CONSUMER,
            at=at,
            stream=item.entry.stream,
            entry_id=item.entry.entry_id,
        )
        for item in decoded
    ]
    return [
        replace(item, event=replace(item.event, traceparent=span.traceparent))
        for item, span in zip(decoded, spans, strict=True)
    ], spans
