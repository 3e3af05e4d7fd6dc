"""What ``rejudge`` found: kept until the walk has ended, then shown as tables or as JSON.

Half an answer looks like a whole one, so nothing is printed before the end.
Until then sums are in memory and lines in temporary files: memory stays flat.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.table import Table

from cli.output import cell, print_rows
from compliance.rejudge import Change, ChangeKind, LawSummary
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from store.recorded_scans import Selection
    from tasks.rejudge import Rejudged, Skipped

IN_MEMORY = 1 << 20
"""Bytes of lines beyond which a temporary file takes them."""

DOMAINS_SHOWN = 20
"""Domains of the table, most changed first; JSON has all."""

SKIPPED_SHOWN = 20
"""Scans named per reason."""


class Lines:
    """JSON lines, written once and read any number of times, on disk where they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by close

    def write(self, value: Any) -> None:
        """Append one.  Raises PermanentError where the disk takes no more."""
        try:
            self._file.write(orjson.dumps(value, option=orjson.OPT_UTC_Z) + b"\n")
        except OSError as error:
            raise PermanentError(
                f"temporary file: {error.strerror}; TMPDIR names another folder"
            ) from error

    def raw(self) -> Iterator[bytes]:
        """All of them, as they are, without their line ends."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip(b"\n")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(orjson.loads, self.raw())

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@dataclass(slots=True)
class SkippedScans:
    """How many scans were skipped for one reason, and the first of them."""

    scans: int = 0
    scan_ids: list[str] = field(default_factory=list)


class Collected:
    """All that one walk found.  ``add`` takes scans by domain; ``end`` closes the last domain."""

    def __init__(self, pack: str, selection: Selection) -> None:
        self.pack = pack
        self.selection = selection
        self.summary = LawSummary()
        self.skipped: dict[str, SkippedScans] = defaultdict(SkippedScans)
        self.scans = Lines()
        self.domains = Lines()
        self._domain: tuple[str, LawSummary, Change] | None = None

    @property
    def looked_at(self) -> int:
        """Scans so far."""
        return self.summary.scans + self.skipped_scans

    @property
    def skipped_scans(self) -> int:
        """Scans that could not be judged by both packs."""
        return sum(reason.scans for reason in self.skipped.values())

    def add(self, judged: Rejudged) -> None:
        """Take one scan's result."""
        scan, law = judged.scan, judged.law
        if self._domain is not None and self._domain[0] != scan.domain:
            self.end()
        sums = self._domain[1] if self._domain else LawSummary()
        self._domain = (scan.domain, sums, law)
        sums.add(law)
        self.summary.add(law)
        self.scans.write(
            {
                "scan_id": scan.scan_id,
                "domain": scan.domain,
                "finished_at": scan.finished_at,
                "judged_by": judged.judged_by,
                "by_law": _change(law),
                "by_site": None if judged.site is None else _change(judged.site),
            }
        )

    def skip(self, skipped: Skipped) -> None:
        """Count one scan that could not be judged by both packs."""
        reason = self.skipped[skipped.reason]
        reason.scans += 1
        if len(reason.scan_ids) < SKIPPED_SHOWN:
            reason.scan_ids.append(skipped.scan.scan_id)

    def end(self) -> None:
        """Close the sums of the domain under way."""
        if self._domain is None:
            return
        domain, sums, latest = self._domain
        self._domain = None
        self.domains.write(
            {
                "domain": domain,
                "score_before": latest.score_before,
                "score_after": latest.score_after,
                **_sums(sums),
                "rules": _by_rule(sums),
            }
        )

    def close(self) -> None:
        """Let go of the temporary files."""
        self.scans.close()
        self.domains.close()


def print_document(found: Collected) -> None:
    """Print all of it as one JSON document on standard output, a scan or a domain a line."""
    out = sys.stdout.buffer
    chosen = found.selection
    head = {
        "pack": found.pack,
        "since": chosen.since,
        "until": chosen.until,
        "domain": chosen.domain,
        "all_scans": chosen.every,
        "totals": {**_sums(found.summary), "skipped": found.skipped_scans},
        "rules": _by_rule(found.summary),
        "skipped": [
            {"reason": reason, "scans": skipped.scans, "scan_ids": skipped.scan_ids}
            for reason, skipped in found.skipped.items()
        ],
    }
    out.write(orjson.dumps(head, option=orjson.OPT_UTC_Z)[:-1])
    for name, lines in (("domains", found.domains), ("scans", found.scans)):
        out.write(b',\n"%s": [' % name.encode())
        for number, line in enumerate(lines.raw()):
            out.write((b",\n" if number else b"\n") + line)
        out.write(b"]")
    out.write(b"}\n")
    out.flush()


def print_tables(found: Collected, *, details: bool) -> None:
    """Print it for a reader: each changed scan where asked, then rules, domains and sums."""
    console = Console(emoji=False, highlight=False)
    if details:
        for scan in found.scans:
            _print_scan(console, scan, found.pack)
    if found.summary.rules:
        console.print("[bold]By law[/bold]: in how many scans a rule's finding changed, and how")
        print_rows(
            [
                {"rule": row["rule_id"], **{kind: row[kind] or None for kind in ChangeKind}}
                for row in _by_rule(found.summary)
            ],
            ("rule", *ChangeKind),
            as_json=False,
            empty="",
        )
        console.print()
    _print_domains(console, found)
    console.print(_in_short(found), soft_wrap=True)
    for reason, skipped in found.skipped.items():
        more = ", …" if skipped.scans > len(skipped.scan_ids) else ""
        console.print(
            f"{skipped.scans:,} skipped, because {cell(reason)}: "
            f"{', '.join(map(cell, skipped.scan_ids))}{more}",
            soft_wrap=True,
        )


def _print_domains(console: Console, found: Collected) -> None:
    changed = [
        domain
        for domain in heapq.nlargest(
            DOMAINS_SHOWN,
            found.domains,
            key=lambda row: (abs(row["mean_points"] or 0), row["changed"]),
        )
        if domain["changed"]
    ]
    if not changed:
        return
    print_rows(
        [
            {
                "domain": row["domain"],
                "scans": row["scans"],
                "changed": row["changed"],
                "latest score": _arrow(row["score_before"], row["score_after"]),
                "mean change": _points(row["mean_points"]),
            }
            for row in changed
        ],
        ("domain", "scans", "changed", "latest score", "mean change"),
        as_json=False,
        empty="",
    )
    console.print()


def _print_scan(console: Console, scan: Mapping[str, Any], pack: str) -> None:
    """By law and by site beside each other, for every rule that differs by either."""
    law, site = scan["by_law"], scan["by_site"]
    sides = [
        {pair["rule_id"]: pair for pair in (side or {}).get("findings", ())} for side in (law, site)
    ]
    rules = sorted({rule for side in sides for rule, pair in side.items() if pair["kinds"]})
    if not rules:
        return
    finished = scan["finished_at"].replace("T", " ").removesuffix("Z")
    console.print(
        f"[bold]{cell(scan['domain'])}[/bold]  {cell(scan['scan_id'])}  {finished} UTC",
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column(f"by law: {cell(scan['judged_by'])} → {cell(pack)}", overflow="fold")
    table.add_column(f"by site: the scan before → this one, {cell(pack)}", overflow="fold")
    table.add_row(
        "score",
        _arrow(law["score_before"], law["score_after"]),
        _arrow(site["score_before"], site["score_after"]) if site else "no scan before to judge",
    )
    for rule in rules:
        table.add_row(cell(rule), *(_told(side.get(rule)) for side in sides))
    console.print(table)
    console.print()


def _told(pair: Mapping[str, Any] | None) -> str:
    """One finding's change in a few words."""
    if pair is None or not pair["kinds"]:
        return "-"
    severities = pair["severity_before"], pair["severity_after"]
    counts = pair["count_before"], pair["count_after"]
    match pair["kinds"][0]:
        case ChangeKind.APPEARED:
            return f"appeared: {severities[1]}, {counts[1]:,}"
        case ChangeKind.VANISHED:
            return f"vanished: {severities[0]}, {counts[0]:,}"
    parts = [_arrow(*severities)] if ChangeKind.SEVERITY in pair["kinds"] else []
    if ChangeKind.COUNT in pair["kinds"]:
        parts.append(_arrow(*counts))
    if ChangeKind.EVIDENCE in pair["kinds"]:
        parts.append(f"{counts[0]:,} others")
    return ", ".join(parts)


def _in_short(found: Collected) -> str:
    sums = found.summary
    which = "scans" if found.selection.every else "scans, the latest of each domain,"
    if not sums.scans and not found.skipped:
        return "No recorded scan is selected: widen --since, --until or --domain."
    text = f"{sums.scans:,} {which} judged again by {cell(found.pack)}: "
    if not sums.changed:
        return text + "nothing changes."
    mean = f"; mean change {_points(sums.mean)} points" if sums.mean is not None else ""
    return (
        text + f"{sums.changed:,} with other findings, {sums.rescored:,} with another score{mean}."
    )


def _arrow(before: object, after: object) -> str:
    was, became = ("held" if side is None else str(side) for side in (before, after))
    return was if was == became else f"{was} → {became}"


def _points(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:+.1f}"


def _change(change: Change) -> dict[str, Any]:
    return {
        "score_before": change.score_before,
        "score_after": change.score_after,
        "points": change.points,
        "findings": change.findings,
    }


def _sums(sums: LawSummary) -> dict[str, Any]:
    return {
        "scans": sums.scans,
        "changed": sums.changed,
        "rescored": sums.rescored,
        "scored": sums.scored,
        "mean_points": None if sums.mean is None else round(sums.mean, 2),
    }


def _by_rule(sums: LawSummary) -> list[dict[str, Any]]:
    return [
        {"rule_id": rule_id, **{kind.value: kinds[kind] for kind in ChangeKind}}
        for rule_id, kinds in sorted(sums.rules.items())
    ]
