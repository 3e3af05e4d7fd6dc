"""Artifacts that travel with an e-mail, by the subscriber's choice and below a size limit."""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec
import structlog

from renderers.registry import RENDERERS
from schemas.errors import NotFound
from schemas.notifications import ArtifactLink, Attachment, ChannelKind, Message, Notification
from schemas.reports import Format
from store.runs import find_artifact_key
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.attaching")


def attach(parts: Wiring, message: Message, formats: Collection[str]) -> Message:
    """The message with its artifacts of these ``formats``, in its order, as far as they fit.

    What does not fit stays a link, and the message says so; an artifact that is
    gone stays a link.  Only an e-mail carries any.  Raises ArtifactsUnavailable and
    LedgerUnavailable, so that the delivery waits for a store that is away.
    """
    if message.address.kind is not ChannelKind.EMAIL or not formats:
        return message
    room = parts.settings.mail_max_attachment_bytes
    attached: list[Attachment] = []
    too_large: list[str] = []
    for artifact in message.notification.artifacts:
        if artifact.format not in formats:
            continue
        if artifact.size_bytes > room:
            too_large.append(artifact.format)
            continue
        data = _read(parts, message.notification, artifact)
        if data is not None:
            room -= artifact.size_bytes
            attached.append(_attachment(message.notification, artifact, data))
    return msgspec.structs.replace(message, attachments=tuple(attached), too_large=tuple(too_large))


def _attachment(told: Notification, artifact: ArtifactLink, data: bytes) -> Attachment:
    renderer = RENDERERS[Format(artifact.format)]
    about = re.sub(r"[^a-z0-9.-]+", "-", (told.domain or "").lower()).strip(".-")[:80]
    day = f"{told.occurred_at:%Y-%m-%d}"
    return Attachment(
        file_name="-".join(part for part in ("report", about, day) if part) + renderer.suffix,
        content_type=renderer.content_type,
        data=data,
    )


def _read(parts: Wiring, told: Notification, artifact: ArtifactLink) -> bytes | None:
    """The very bytes that the message speaks of, or None where they are not there any more."""
    with parts.ledger.read() as connection:
        key = find_artifact_key(connection, told.scan_id or "", artifact.sha256)
    try:
        data = None if key is None else parts.artifacts.get(key)
    except NotFound:
        data = None
    if data is None or len(data) != artifact.size_bytes:
        log.warning("attachment_gone", scan_id=told.scan_id, format=artifact.format)
        return None
    return data
