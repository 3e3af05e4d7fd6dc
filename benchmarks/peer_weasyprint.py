"""WeasyPrint: HTML and CSS to PDF, in Python."""

from __future__ import annotations

from jinja2 import Environment
from weasyprint import HTML

from benchmarks.inventory import FONT_FILE, Summary, Table

_PAGE = Environment(autoescape=True).from_string(
    """<!doctype html><html><head><meta charset="utf-8"><title>{{ summary.title }}</title><style>
@font-face { font-family: Peer; src: url("{{ font }}") }
@page { size: A4 landscape; margin: 30pt; @bottom-left { content: counter(page) } }
body { font: 9pt Peer }
table { page-break-before: always; width: 100%; table-layout: fixed; font-size: {{ table.size }}pt }
td, th { overflow-wrap: anywhere; text-align: left; vertical-align: top; padding: 1pt }
.bar { display: inline-block; height: 11pt; background: black }
</style></head><body><h1>{{ summary.title }}</h1>
{% for line in summary.lines %}<p>{{ line }}</p>{% endfor %}
{% for label, count in summary.bars %}
<div>{{ label }} <span class="bar" style="width: {{ 300 * count / most }}pt"></span> {{ count }}
</div>{% endfor %}
<table><colgroup>{% for share in table.shares %}
<col style="width: {{ 100 * share / total }}%">{% endfor %}</colgroup>
<thead><tr>{% for title in table.head %}<th>{{ title }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></body></html>"""
)


def draw(summary: Summary, table: Table) -> bytes:
    """A PDF of ``summary`` and ``table``."""
    page = _PAGE.render(
        summary=summary,
        table=table,
        font=FONT_FILE.as_uri(),
        most=max((count for _, count in summary.bars), default=0) or 1,
        total=sum(table.shares),
    )
    return bytes(HTML(string=page).write_pdf())
