"""Logs: past-tense facts with bound ids; for eyes on a terminal, JSON otherwise.

Never payloads, addresses or secrets.  Other libraries' log records pass through
the same renderer, so a process speaks with one voice.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from schemas.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Send everything to standard error.  Safe to call again."""
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("httpx", "httpcore", "alembic", "aiosmtpd", "mail.log", "celery.pool"):
        # these log a line per request or task, with addresses and arguments in it
        logging.getLogger(chatty).setLevel(logging.WARNING)
