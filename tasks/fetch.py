"""A claim check redeemed: fetch what a dataref points to, then go the usual way.

Only tasks fetch, never the listener: a server that does not answer must not
hold up the stream.  https goes through the guarded transport, s3/gs/az through
the object store library, files only below the allowed roots.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from celery import Task
from obstore.exceptions import BaseError, NotFoundError

from channels.guarded_http import GuardedHttp
from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import (
    BrokerUnavailable,
    ChannelUnavailable,
    DataUnavailable,
    DeliveryRejected,
    InvalidEvent,
    InvalidSettings,
    PermanentError,
    TooLarge,
    TransientError,
)
from schemas.events import EventType, decode_data
from schemas.runs import Run, RunTicket
from schemas.scans import decode_scan
from schemas.settings import Settings
from store import runs
from store.events import store_fetched_scan
from tasks import wiring
from tasks.app import FETCH_DATA, app
from tasks.attempts import begin, forgive, give_up, put_off
from tasks.chords import dispatch
from tasks.retrying import retry_soon
from tasks.tracing import SpanKind
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.fetch")


@app.task(name=FETCH_DATA, bind=True, ignore_result=True)
def fetch_data(self: Task[..., Any], run_id: str, attempt: int) -> None:
    """Fetch a run's data and dispatch the rest of it under the same attempt.

    What breaks the contract makes the event dead with a reason; what does not
    answer is left to the sweep's next attempts, and dead after the last one.
    """
    parts = wiring.current()
    try:
        ticket = redeem(parts, run_id, attempt) if begin(parts, run_id) else None
    except InvalidSettings as error:
        # A brand file that this process cannot read is no fault of the event.
        put_off(parts, run_id, attempt, str(error))
        return
    except PermanentError as error:
        give_up(parts, run_id, str(error))
        return
    except TransientError as error:
        number = self.request.retries + 1
        if isinstance(error, DataUnavailable) and number > parts.settings.task_max_retries:
            put_off(parts, run_id, attempt, f"{error}, in {number} tries")
            return
        forgive(parts, run_id)
        raise retry_soon(self, error, parts) from error
    if ticket is None:
        return
    crash_here(CrashPoint.FETCH_RECORDED)
    try:
        dispatch([ticket])
    except BrokerUnavailable as error:
        log.warning("dispatch_left_to_sweep", run_id=run_id, error=str(error))


def redeem(parts: Wiring, run_id: str, attempt: int) -> RunTicket | None:
    """Fetch, validate and record; return what to dispatch, or None for a settled run.

    Killed after the commit and before dispatching, the run waits for its
    deadline; its data is there, so the next attempt does not fetch again.
    """
    with parts.ledger.read() as connection:
        run = runs.load_run(connection, run_id)
    if run.state.is_settled:
        return None
    if not run.data:
        with parts.tracer.span(
            "fetch", run.traceparent, SpanKind.CLIENT, run_id=run_id, attempt=attempt
        ):
            data = fetch(run.dataref or "", parts.settings)
        _record(parts, run, data)
        with parts.ledger.read() as connection:
            run = runs.load_run(connection, run_id)
    is_replay = run.replay_id is not None
    return RunTicket(
        run.run_id,
        attempt,
        run.formats,
        needs_data=False,
        is_replay=is_replay,
        data_bytes=len(run.data),
    )


def fetch(dataref: str, settings: Settings) -> bytes:
    """The bytes behind a dataref, at most ``max_entry_bytes``.

    Raises InvalidEvent for a reference that cannot be right, TooLarge,
    DataUnavailable for one that may answer later.
    """
    try:
        scheme = urlsplit(dataref).scheme.lower()
    except ValueError:
        # not chained: the parser quotes what it could not read, which may hold a password
        raise InvalidEvent("dataref is no URL") from None
    reader = READERS.get(scheme)
    if reader is None:
        raise InvalidEvent(
            f"dataref scheme {scheme!r} is not supported; use one of: {', '.join(READERS)}"
        )
    data = reader(dataref, settings)
    if not data.strip():
        raise InvalidEvent("the dataref's content is empty")
    return data


def _fetch_http(dataref: str, settings: Settings) -> bytes:
    client = GuardedHttp(allow=settings.http_allow, timeout_s=settings.dataref_timeout_s)
    try:
        return client.get(dataref, settings.max_entry_bytes)
    except ChannelUnavailable as error:
        raise DataUnavailable(f"dataref: {error}", error.retry_after) from error
    except DeliveryRejected as error:
        raise InvalidEvent(f"dataref: {error}") from error
    finally:
        client.close()


def _fetch_object(dataref: str, settings: Settings) -> bytes:
    parts = urlsplit(dataref)
    key = unquote(parts.path).lstrip("/")
    if not parts.netloc or not key:
        raise InvalidEvent("dataref must be like s3://bucket/key")
    place = f"{parts.scheme}://{parts.netloc}"
    if place not in settings.dataref_buckets:
        raise InvalidEvent(
            "dataref: the bucket is not one of the allowed ones (SCANHERALD_DATAREF_BUCKETS)"
        )
    try:
        # one try of at most 30 s, the library's limit: our own retries decide what follows
        bucket = obstore.store.from_url(place, retry_config={"max_retries": 0})
        found = obstore.get(bucket, key)  # the answer's head; its body follows on demand
        if found.meta["size"] > settings.max_entry_bytes:
            raise _too_large(settings)
        return bytes(found.bytes())
    except (FileNotFoundError, NotFoundError) as error:
        raise InvalidEvent(f"dataref: no object {key} in {parts.netloc}") from error
    except (BaseError, OSError, ValueError) as error:
        said, _, _ = str(error).partition("\n")
        raise DataUnavailable(f"dataref: {said[:300]}") from error


def _fetch_file(dataref: str, settings: Settings) -> bytes:
    try:
        path = Path(unquote(urlsplit(dataref).path)).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL, or links in a circle
        raise InvalidEvent(f"dataref is no path: {error}") from error
    roots = [root.resolve() for root in settings.dataref_file_roots]
    if not any(path.is_relative_to(root) for root in roots):
        raise InvalidEvent(
            "dataref: the file is outside the allowed folders (SCANHERALD_DATAREF_FILE_ROOTS)"
        )
    try:
        with path.open("rb") as file:
            data = file.read(settings.max_entry_bytes + 1)
    except FileNotFoundError as error:
        raise InvalidEvent(f"dataref: there is no file {path.name}") from error
    except OSError as error:
        raise DataUnavailable(f"dataref: {path.name}: {error.strerror}") from error
    if len(data) > settings.max_entry_bytes:
        raise _too_large(settings)
    return data


READERS: dict[str, Callable[[str, Settings], bytes]] = {
    "https": _fetch_http,
    "http": _fetch_http,
    "s3": _fetch_object,
    "gs": _fetch_object,
    "az": _fetch_object,
    "file": _fetch_file,
}
"""http passes only where the guard's allowlist names the host."""


def _record(parts: Wiring, run: Run, data: bytes) -> None:
    scan = None
    if run.event_type is EventType.SCAN_COMPLETED:
        scan = decode_scan(data)
    else:
        decode_data(data)
    with parts.ledger.write() as connection:
        store_fetched_scan(
            connection,
            run.run_id,
            run.event_pk,
            data,
            scan,
            defaults=parts.run_defaults,
            now=parts.clock(),
            is_replay=run.replay_id is not None,
        )
        runs.forgive_work(connection, run.run_id)
        runs.mark_dispatched(
            connection,
            [RunTicket(run.run_id, run.attempt, run.formats, needs_data=False)],
            parts.clock() + timedelta(seconds=parts.settings.run_deadline_s),
        )


def _too_large(settings: Settings) -> TooLarge:
    return TooLarge(
        f"the dataref's content is larger than {settings.max_entry_bytes:,} bytes "
        "(SCANHERALD_MAX_ENTRY_BYTES)"
    )
