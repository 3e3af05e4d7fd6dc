"""Whether this process traces: by OpenTelemetry's own variables, if it is installed."""

from __future__ import annotations

import structlog

from schemas.settings import Settings
from tasks.tracing import NoTracer, Tracer

log = structlog.get_logger("tasks.tracing")


def open_tracer(settings: Settings) -> Tracer:
    """The tracer of this process, by OpenTelemetry's own variables; after the fork, never before.

    Off unless OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_ENDPOINT is set.
    """
    wanted = settings.otel_traces_exporter or (
        "otlp" if settings.otel_exporter_otlp_endpoint else "none"
    )
    if wanted == "none" or settings.otel_sdk_disabled:
        return NoTracer()
    try:
        from tasks.otel import OpenTelemetry, span_exporter  # heavy, and an extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        # The variables may be set for a whole machine: they must not stop a service without it.
        log.warning("tracing_not_installed", install="pip install 'scanherald[otel]'")
        return NoTracer()
    return OpenTelemetry(span_exporter(wanted))
