"""What most projects do: reportlab's Platypus, one table of Paragraphs."""

from __future__ import annotations

from io import BytesIO
from xml.sax.saxutils import escape

from reportlab.graphics.charts.barcharts import HorizontalBarChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import LongTable, PageBreak, Paragraph, SimpleDocTemplate

from benchmarks.floor_pdf import FONT, MARGIN, load_font
from benchmarks.inventory import Summary, Table


def draw(summary: Summary, table: Table) -> bytes:
    """A PDF of ``summary`` and ``table``."""
    load_font()
    out = BytesIO()
    body = ParagraphStyle("body", fontName=FONT, fontSize=9, leading=14)
    small = ParagraphStyle(
        "cell", fontName=FONT, fontSize=table.size, leading=table.size * 1.2, splitLongWords=1
    )
    page = landscape(A4)
    document = SimpleDocTemplate(
        out, pagesize=page, invariant=1,
        leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN,
    )  # fmt: skip
    unit = (page[0] - 2 * MARGIN - 12) / sum(table.shares)
    cells = [
        [Paragraph(escape(str(cell)), small) for cell in row] for row in [table.head, *table.rows]
    ]
    document.build(
        [
            Paragraph(escape(summary.title), body),
            *(Paragraph(escape(line), body) for line in summary.lines),
            _chart(summary),
            PageBreak(),
            LongTable(cells, colWidths=[share * unit for share in table.shares], repeatRows=1),
        ]
    )
    return out.getvalue()


def _chart(summary: Summary) -> Drawing:
    chart = HorizontalBarChart()
    chart.x, chart.width, chart.height = 100, 300, 120
    chart.data = [[count for _, count in summary.bars]]
    chart.categoryAxis.categoryNames = [label for label, _ in summary.bars]
    chart.valueAxis.valueMin = 0
    drawing = Drawing(420, 140)
    drawing.add(chart)
    return drawing
