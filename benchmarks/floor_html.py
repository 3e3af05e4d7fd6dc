"""The floor of the HTML page: one table, autoescaped by jinja2, compiled once."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, Template


def write_html(rows: list[tuple[str, ...]]) -> bytes:
    """A page of ``rows``, which all have as many cells as the first."""
    return _table(len(rows[0]) if rows else 1).render(rows=rows).encode()


@cache
def _table(columns: int) -> Template:
    # Written out cell by cell: a loop over the cells would be slower.
    names = ", ".join(f"text{column}" for column in range(columns))
    cells = "".join(f"<td>{{{{ text{column} }}}}</td>" for column in range(columns))
    return Environment(autoescape=True).from_string(
        "<!doctype html><meta charset=utf-8><title>Cookies</title><table>\n"
        f"{{% for {names} in rows %}}<tr>{cells}</tr>\n{{% endfor %}}</table>\n"
    )
