"""typst: a compiled typesetter; the data goes in as JSON."""

from __future__ import annotations

import json
import shutil
from functools import cache
from tempfile import TemporaryDirectory

import typst

from benchmarks.inventory import FONT_FILE, Summary, Table

_SOURCE = rb"""
#let data = json(bytes(sys.inputs.data))
#set page(width: 842pt, height: 595pt, margin: 30pt, numbering: "1")
#set text(font: "DejaVu Sans", size: 9pt)
= #data.title
#for line in data.lines [#line \ ]
#let most = calc.max(1, ..data.bars.map(bar => bar.at(1)))
#for (label, count) in data.bars {
  box(width: 90pt, label)
  box(rect(width: 300pt * count / most, height: 11pt, fill: black))
  [ #count \ ]
}
#pagebreak()
#set text(size: data.size * 1pt)
#table(
  columns: data.shares.map(share => share * 1fr),
  stroke: none, inset: 1.5pt,
  table.header(..data.head),
  ..data.rows.flatten(),
)
"""


def draw(summary: Summary, table: Table) -> bytes:
    """A PDF of ``summary`` and ``table``."""
    data = {
        "title": summary.title,
        "lines": summary.lines,
        "bars": summary.bars,
        "size": table.size,
        "shares": table.shares,
        "head": table.head,
        "rows": table.rows,
    }
    return bytes(
        typst.compile(
            _SOURCE,
            font_paths=[_font_folder().name],
            ignore_system_fonts=True,
            sys_inputs={"data": json.dumps(data)},
        )
    )


@cache
def _font_folder() -> TemporaryDirectory[str]:
    """A folder with the one font: typst reads every font of a folder, and we ship many."""
    folder = TemporaryDirectory()
    shutil.copy(FONT_FILE, folder.name)
    return folder
