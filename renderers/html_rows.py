"""The inventory of the HTML page as ready rows: the one part that grows with the scan.

Cells repeat (vendors, flags, lifetimes), so each is escaped once and remembered;
a template that escapes cell by cell takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import islice
from typing import Generic, TypeVar

from markupsafe import Markup

from languages.language import Language
from renderers.visible import Marks, mark, prose, visible
from renderers.wording import category_lines, classification, consent_word, finding_numbers, tri
from schemas.reports import Category, Finding, InventoryCookie, Party, Report

ROWS_AT_ONCE = 50
"""So many rows are one piece of the page: enough to be fast, too few to be felt in memory."""

_MEMO_ENTRIES = 4096
_MEMO_CHARS = 400

Key = TypeVar("Key")


def isolate(text: str, marks: Marks) -> str:
    """``text`` escaped and visible; in ``<bdi>`` where its letters may run from right to left."""
    if text.isascii() and text.isprintable() and not text.isspace():
        return escape(text)
    if not text:
        return ""
    # Blanks alone would look like an empty cell.
    shown = mark(0x20) * len(text) if text.isspace() and text.isprintable() else text
    return f"<bdi>{escape(visible(shown, marks))}</bdi>"


def link_evidence(finding: Finding, marks: Marks) -> str:
    """The evidence of a finding, as markup; each cookie with a link to its row."""
    return ", ".join(
        isolate(item.label, marks)
        if item.cookie_number is None
        else f'<a href="#c{item.cookie_number}">{item.cookie_number}</a> '
        f"{isolate(item.label, marks)}"
        for item in finding.evidence
    )


class InventoryRows:
    """Iterates over the rows in pieces of markup; every iteration starts anew."""

    def __init__(self, report: Report, t: Language) -> None:
        self._report = report
        self._t = t

    def __iter__(self) -> Iterator[Markup]:
        cookies = iter(self._report.cookies)
        writer = _RowWriter(self._report, self._t)
        while some := list(islice(cookies, ROWS_AT_ONCE)):
            yield Markup("".join(map(writer.row, some)))  # noqa: S704 - isolate escaped each value


class _Memo(dict[Key, str], Generic[Key]):
    """Cells by what they show, made when first asked for; bounded, long ones are not kept."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        cell = self._make(key)
        if len(cell) <= _MEMO_CHARS:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[key] = cell
        return cell


class _RowWriter:
    """One document's rows: its words escaped once, its cells remembered."""

    def __init__(self, report: Report, t: Language) -> None:
        marks = Marks()
        self._t = t
        self._dash = escape(t["dash"])
        self._nameless = escape(t["empty_name"])
        self._numbers = finding_numbers(report)
        self._parties = {party: escape(t[f"party.{party}"]) for party in Party}
        self._moments = {when: escape(consent_word(when, t)) for when in (None, True, False)}
        self._flags = {flag: escape(tri(flag, t)) for flag in (None, True, False)}
        self._show = _Memo[str](lambda text: isolate(text, marks))
        self._purposes = _Memo[str](lambda text: isolate(prose(text), marks))
        self._sizes = _Memo[int | None](self._size)
        self._findings = _Memo[tuple[str, ...]](self._links)
        self._categories = _Memo[tuple[Category, str | None]](
            lambda facts: self._lines(category_lines(*facts, t))
        )
        self._classified = _Memo[tuple[str | None, float | None, tuple[str, ...], bool]](
            lambda facts: self._lines(classification(*facts, t))
        )

    def row(self, cookie: InventoryCookie) -> str:
        """One row; its columns are those of the template's table head."""
        show, dash, flags = self._show, self._dash, self._flags
        number = cookie.number
        seconds = 0 if cookie.is_session else cookie.duration_seconds
        lasting = "" if seconds is None else f' data-n="{seconds}"'
        classified = (
            cookie.classified_by, cookie.ml_confidence, cookie.iab_purposes, cookie.needs_review
        )  # fmt: skip
        return (
            f'<tr id="c{number}"><td class="n">{number}</td>'
            f'<th scope="row">{show[cookie.name] if cookie.name else self._nameless}</th>'
            f"<td>{show[cookie.domain] or dash}<small>{show[cookie.path] or dash}</small></td>"
            f"<td>{self._parties[cookie.party]}</td>"
            f"<td>{self._categories[cookie.category, cookie.category_sent]}</td>"
            f"<td>{self._purposes[cookie.purpose] if cookie.purpose else dash}</td>"
            f"<td>{show[cookie.vendor] if cookie.vendor else dash}</td>"
            f"<td{lasting}>{show[cookie.duration] if cookie.duration else dash}</td>"
            f"{self._sizes[cookie.size_bytes]}"
            f"<td>{flags[cookie.secure]} · {flags[cookie.http_only]}"
            f" · {show[cookie.same_site] if cookie.same_site else dash}</td>"
            f"<td>{self._moments[cookie.before_consent]}</td>"
            f"<td>{self._classified[classified]}</td>"
            f"<td>{self._findings[cookie.rule_ids]}</td></tr>\n"
        )

    def _lines(self, texts: Sequence[str]) -> str:
        """The first text, and the others small below it."""
        first, *others = (self._show[text] for text in texts)
        return first + "".join(f"<small>{text}</small>" for text in others)

    def _size(self, value: int | None) -> str:
        if value is None:
            return f'<td class="n">{self._dash}</td>'
        return f'<td class="n" data-n="{value}">{escape(self._t.number(value))}</td>'

    def _links(self, rule_ids: tuple[str, ...]) -> str:
        numbers = (self._numbers[rule_id] for rule_id in rule_ids)
        return ", ".join(f'<a href="#f{number}">{number}</a>' for number in numbers)
