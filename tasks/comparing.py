"""The scan that a run's scan is compared with, among the earlier ones that the run has frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import structlog

from compliance.comparison import Comparison, Earlier, choose_comparison
from schemas.errors import InvalidEvent
from schemas.runs import EarlierEvent, FrozenInputs
from schemas.scans import decode_scan
from schemas.settings import environment_name
from store.events import read_payload
from store.ledger import Ledger

log = structlog.get_logger("tasks.comparing")


def frozen_comparison(
    ledger: Ledger, inputs: FrozenInputs, finished_at: datetime, *, max_cookies: int
) -> Comparison:
    """What the scan of these inputs, which finished then, is compared with.

    One earlier scan is read at a time; one that this release cannot read is passed over,
    or no later scan of its domain could be judged again.  Raises InvalidEvent where the
    bytes of one have been deleted since: a report without it would be another one under
    the same name.  Raises LedgerUnavailable.
    """
    earlier = frozen_events(inputs, finished_at)
    return choose_comparison(_read(ledger, earlier), finished_at, max_cookies=max_cookies)


def frozen_events(inputs: FrozenInputs, finished_at: datetime) -> Sequence[EarlierEvent]:
    """The earlier scans that the inputs name, oldest first.

    A run from before there were several has one, of which nobody asks when it finished.
    """
    if inputs.earlier or inputs.previous_scan_id is None or inputs.previous_event_pk is None:
        return inputs.earlier
    return [EarlierEvent(inputs.previous_scan_id, inputs.previous_event_pk, finished_at)]


def _read(ledger: Ledger, earlier: Sequence[EarlierEvent]) -> Iterator[Earlier]:
    for item in earlier:
        with ledger.read() as connection:
            data = read_payload(connection, item.event_pk)
        if data is None:
            raise InvalidEvent(
                f"the data of the scan before, {item.scan_id}, has been deleted "
                f"({environment_name('scans_retention_days')}): the report cannot be made again "
                "as it was"
            )
        try:
            scan = decode_scan(data)
        except InvalidEvent as error:
            log.warning("earlier_scan_unreadable", event_pk=item.event_pk, error=str(error))
            continue
        yield Earlier(scan, item.finished_at)
