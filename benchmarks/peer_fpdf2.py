"""fpdf2: pure Python, with its own table."""

from __future__ import annotations

from fpdf import FPDF
from fpdf.fonts import FontFace

from benchmarks.inventory import FONT_FILE, Summary, Table


def draw(summary: Summary, table: Table) -> bytes:
    """A PDF of ``summary`` and ``table``."""
    pdf = FPDF(orientation="landscape", unit="pt", format="A4")
    pdf.set_margin(30)
    pdf.add_font("Peer", fname=FONT_FILE)
    pdf.add_page()
    pdf.set_font("Peer", size=18)
    pdf.cell(text=summary.title, new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Peer", size=9)
    for line in summary.lines:
        pdf.multi_cell(w=0, text=line, new_x="LMARGIN", new_y="NEXT")
    most = max((count for _, count in summary.bars), default=0) or 1
    for label, count in summary.bars:
        pdf.cell(w=90, text=label)
        pdf.rect(pdf.x, pdf.y, 300 * count / most, 11, style="F")
        pdf.cell(w=0, text=str(count), align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.add_page()
    pdf.set_font("Peer", size=table.size)
    with pdf.table(
        col_widths=tuple(int(share) for share in table.shares),
        line_height=table.size * 1.2,
        borders_layout="NONE",
        text_align="LEFT",
        first_row_as_headings=True,
        headings_style=FontFace(),
        num_heading_rows=1,
    ) as drawn:
        for row in [table.head, *table.rows]:
            drawn.row([str(cell) for cell in row])
    return bytes(pdf.output())
