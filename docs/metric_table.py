"""The metrics' own page: its prose is written by hand, its tables come from the list."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from schemas.metrics import EXPORTED, LISTENER, Metric

BEGIN = "<!-- {name}: made by make docs from schemas/metrics.py -->\n"
END = "<!-- {name}: end -->\n"


def metrics_page(page: Path) -> str:
    """The page with its tables made anew.  Raises ValueError for a page without their marks."""
    text = page.read_text(encoding="utf-8")
    for name, listed in (("exporter", EXPORTED), ("listener", LISTENER)):
        text = _with_table(text, name, listed)
    return text


def _with_table(text: str, name: str, listed: Iterable[Metric]) -> str:
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if not rest or not after:
        raise ValueError(f"the metrics' page has lost a mark of its table: {begin}{end}")
    head = "\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    return before + begin + head + "".join(map(_row, listed)) + "\n" + end + after


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    explained = re.sub(r"([|\[\]<>*_])", r"\\\1", metric.help)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {explained} |\n"
