"""``violations``: what was found on each domain, since when, and whether it is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import print_rows
from cli.records import AsJson, Domain
from cli.settings import load_settings

if TYPE_CHECKING:
    from schemas.violations import Violation


def violations_command(
    limit: Annotated[int, typer.Option(min=1, help="Rows at most, last seen first.")] = 50,
    domain: Domain = None,
    open_only: Annotated[bool, typer.Option("--open", help="Without those resolved.")] = False,
    as_json: AsJson = False,
) -> None:
    """List violations: one for each rule that found something serious on a domain.

    A domain that is no longer scanned reminds nobody of its violations; they are here.
    """
    from store.ledger import open_ledger
    from store.violations import list_violations

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        found = list_violations(connection, limit=limit, domain=domain, open_only=open_only)
    print_rows(
        [_row(violation) for violation in found],
        (
            "domain",
            "rule_id",
            "severity",
            "count",
            "occurrence",
            "first_seen_at",
            "last_seen_at",
            "reminders",
            "resolved_at",
        ),
        as_json=as_json,
        empty="No open violations." if open_only else "No violations yet.",
    )


def _row(violation: Violation) -> dict[str, Any]:
    sighting = violation.sighting
    return {
        "domain": violation.domain,
        "rule_id": sighting.rule_id,
        "severity": sighting.severity.value,
        "title": sighting.title,
        "count": sighting.count,
        "occurrence": violation.occurrence,
        "first_seen_at": violation.first_seen_at,
        "last_seen_at": violation.last_seen_at,
        "last_told_at": violation.last_told_at,
        "reminders": violation.reminders,
        "resolved_at": violation.resolved_at,
        "last_scan_id": sighting.scan_id,
        "rule_pack": f"{sighting.rule_pack}-{sighting.rule_pack_version}",
    }
