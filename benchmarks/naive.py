"""What one writes first: the whole scan in one task, formats in a loop, a POST at the end.

No ledger, no leases, no repeats told apart: what a crash loses is lost.  It says
the same as our reports do, laid out by Platypus with a Paragraph in each cell.

    celery -A benchmarks.naive worker          # NAIVE_REDIS, NAIVE_FOLDER, NAIVE_HOOKS
    python -m benchmarks.naive                 # the listener
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import httpx
import msgspec
import redis
from celery import Celery
from jinja2 import Environment
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table

from benchmarks.inventory import FONT_FILE
from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from schemas.reports import Report
from schemas.scans import decode_scan

URL = os.environ.get("NAIVE_REDIS", "redis://127.0.0.1:6379/0")
FOLDER = Path(os.environ.get("NAIVE_FOLDER", "naive-reports"))
HOOKS = os.environ.get("NAIVE_HOOKS", "").split()
STREAM, GROUP = "scans:events", "naive"
BOUNDS = Bounds(max_cookies=50_000, max_string_bytes=8192)
MARGIN = 30.0

app = Celery("naive", broker=URL, backend=URL)
pack = load_pack("eu-baseline")
page = Environment(autoescape=True).from_string(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<h1>{{ title }}</h1>{% for heading, head, rows in sections %}<h2>{{ heading }}</h2><table>
<tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endfor %}"""
)
pdfmetrics.registerFont(TTFont("Naive", str(FONT_FILE)))


@app.task(name="report_scan")
def report_scan(scan: dict[str, Any]) -> list[str]:
    """Make all formats of a scan, one after another, and tell the hooks."""
    report = assess_scan(json.dumps(scan).encode())
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, write in FORMATS.items():
        path = FOLDER / f"{report.identity.scan_id}.{suffix}"
        path.write_bytes(write(report))
        paths.append(str(path))
    for hook in HOOKS:
        httpx.post(
            hook,
            json={
                "scan_id": report.identity.scan_id,
                "score": report.score.value,
                "reports": paths,
            },
        )
    return paths


def assess_scan(data: bytes) -> Report:
    """The same judgement as ours."""
    return assess(decode_scan(data), scan_sha256="", pack=pack, bounds=BOUNDS)


def write_pdf(report: Report) -> bytes:
    """Every section a table of Paragraphs."""
    out = BytesIO()
    size = landscape(A4)
    styles = getSampleStyleSheet()
    for style in styles.byName.values():
        style.fontName = "Naive"
    cell = styles["BodyText"].clone("cell", fontSize=7, leading=8.4, splitLongWords=1)
    story: list[Flowable] = [Paragraph(escape(title(report)), styles["Title"])]
    for heading, head, rows in sections(report):
        cells = [[Paragraph(escape(text), cell) for text in row] for row in (head, *rows)]
        story += [
            Paragraph(escape(heading), styles["Heading2"]),
            Table(cells, colWidths=_widths(rows, size[0] - 2 * MARGIN - 12), repeatRows=1),
            Spacer(1, 12),
        ]
        if heading == "Findings":
            story.append(PageBreak())
    SimpleDocTemplate(
        out, pagesize=size,
        leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN,
    ).build(story)  # fmt: skip
    return out.getvalue()


def _widths(rows: list[list[str]], room: float) -> list[float]:
    shares = [min(30, max(6, *map(len, column))) for column in zip(*rows, strict=True)]
    return [room * share / sum(shares) for share in shares]


def write_html(report: Report) -> bytes:
    """The same tables."""
    return page.render(title=title(report), sections=list(sections(report))).encode()


def write_json(report: Report) -> bytes:
    """The Report as it is."""
    return json.dumps(msgspec.to_builtins(report), indent=2).encode()


def write_csv(report: Report) -> bytes:
    """The inventory."""
    out = StringIO()
    _, head, rows = next(found for found in sections(report) if found[0] == "Inventory")
    csv.writer(out).writerows([head, *rows])
    return out.getvalue().encode()


FORMATS = {"pdf": write_pdf, "html": write_html, "json": write_json, "csv": write_csv}


def title(report: Report) -> str:
    """The first line."""
    return f"Cookie scan report: {report.identity.domain}"


Section = tuple[str, Sequence[str], list[list[str]]]


def sections(report: Report) -> Iterable[Section]:
    """Heading, head and rows of every section that has rows."""
    totals = report.totals
    yield from (
        (heading, head, [[_text(cell) for cell in row] for row in rows])
        for heading, head, rows in (
            (
                "Summary",
                ("Score", "Cookies", "Before consent", "Third party", "Session", "Storage keys"),
                [
                    (
                        report.score.value,
                        totals.cookies,
                        totals.before_consent,
                        totals.third_party,
                        totals.session,
                        totals.storage_keys,
                    )
                ],
            ),
            (
                "Findings",
                ("Severity", "Finding", "Explanation", "What to do", "Source", "Count"),
                [
                    (
                        finding.severity,
                        finding.title,
                        finding.explanation,
                        finding.action,
                        finding.source,
                        finding.count,
                    )
                    for finding in report.findings
                ],
            ),
            (
                "Evidence",
                ("Finding", "Evidence"),
                [
                    (finding.title, ", ".join(evidence.label for evidence in finding.evidence))
                    for finding in report.findings
                ],
            ),
            (
                "Categories",
                ("Category", "Cookies"),
                [(count.label, count.count) for count in totals.categories],
            ),
            (
                "Consent",
                ("Category", "Before", "After", "Unknown"),
                [(row.category, row.before, row.after, row.unknown) for row in report.consent],
            ),
            (
                "Third parties",
                ("Domain", "Vendors", "Cookies"),
                [
                    (party.domain, ", ".join(party.vendors), party.cookies)
                    for party in report.third_parties
                ],
            ),
            (
                "Lifetimes",
                ("Lifetime", "Cookies"),
                [(row.label, row.count) for row in report.lifetimes],
            ),
            (
                "Exemptions",
                ("Cookie", "Verdict", "Reason"),
                [(row.name, row.verdict, row.reason) for row in report.exemptions],
            ),
            (
                "Inventory",
                ("No.", "Name", "Domain", "Path", "Party", "Category", "Purpose", "Vendor",
                 "Lifetime", "Size", "Secure", "HttpOnly", "SameSite", "Before consent", "Rules"),
                [
                    (
                        cookie.number, cookie.name, cookie.domain, cookie.path, cookie.party,
                        cookie.category, cookie.purpose, cookie.vendor, cookie.duration,
                        cookie.size_bytes, cookie.secure, cookie.http_only, cookie.same_site,
                        cookie.before_consent, ", ".join(cookie.rule_ids),
                    )
                    for cookie in report.cookies
                ],
            ),
            (
                "Storage",
                ("Area", "Key", "Size"),
                [(key.area, key.key, key.value_size) for key in report.storages],
            ),
            ("Limits", ("Limit", "Meaning"), [(row.code, row.text) for row in report.limits]),
        )
        if rows
    )  # fmt: skip


def _text(value: object) -> str:
    return "–" if value is None else str(value)


def listen() -> None:
    """Read, publish, acknowledge."""
    client: Any = redis.Redis.from_url(URL)
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    while True:
        for _, entries in client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=10, block=2000):
            for entry_id, fields in entries:
                report_scan.delay(json.loads(fields[b"data"]))
                client.xack(STREAM, GROUP, entry_id)


if __name__ == "__main__":
    listen()
