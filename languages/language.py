"""One language: its texts from a catalogue, and its way to write numbers and moments.

Judgement, renderers and channels all speak through it.  A catalogue is one
gettext file here, ``<code>.po``: texts of our own by key, English first in
``en.po``; texts of shipped rule packs by their English wording.  Adding a
language is adding a catalogue.
"""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from functools import cache, lru_cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_decimal

from schemas.errors import InvalidSettings

CATALOGUES = Path(__file__).parent

_FORMATS = {"en": "en_150"}
"""Locales of dates and numbers where the plain language means another: ``en`` alone is American,
with months first and hours in halves; reports are read all over Europe."""

_CODE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?")
"""One spelling for each language: codes become parts of keys and of files' names, and babel
would take ``en.UTF-8/../x`` for English."""

_KNOWN_NUMBERS = 4096
_KNOWN_MOMENTS = 1024
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " "})
"""Grouping spaces become plain ones: in a report, any other space is a sign of hostile data."""


class _Missing(NullTranslations):
    """Where a catalogue has no text: an error, never the key itself on somebody's page."""

    def gettext(self, message: str) -> str:
        raise KeyError(f"no text {message!r} in this catalogue")

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:  # noqa: ARG002 - as the base has it
        raise KeyError(f"no text {msgid1!r} in this catalogue")


class Language:
    """What is said, and how; immutable but for what it remembers."""

    def __init__(self, code: str, locale: Locale, texts: GNUTranslations, letters: str) -> None:
        self.code = code
        self.letters = letters
        """What its texts are written with beside ASCII, in the order of Unicode."""
        self._locale = locale
        self._texts = texts
        self._said: dict[str, str] = {}
        self._numbers: dict[float, str] = {}

    @property
    def right_to_left(self) -> bool:
        """Whether its script runs from right to left."""
        return self._locale.text_direction == "rtl"

    def __getitem__(self, key: str) -> str:
        """Our own text ``key``, placeholders and all.  Raises KeyError where there is none."""
        said = self._said.get(key)
        if said is None:
            said = self._said[key] = self._texts.gettext(key)
        return said

    def say(self, key: str, /, **values: Any) -> str:
        """Our own text ``key`` with its placeholders filled; numbers are written as here."""
        return self[key].format_map(self._written(values))

    def plural(self, noun: str, count: int) -> str:
        """``count`` with its noun, such as "3 cookies"."""
        key = f"plural.{noun}"
        said = self._texts.ngettext(key, key, count)
        return said.format_map(self._written({"count": count}))

    def translate(self, text: str) -> str:
        """A rule pack's ``text`` in this language; as it stands where it has no translation."""
        try:
            return self._texts.gettext(text) if text else text
        except KeyError:
            return text

    def number(self, value: float) -> str:
        """A number with grouping; a fraction keeps at most six significant digits."""
        known = self._numbers.get(value)
        if known is None:
            if len(self._numbers) >= _KNOWN_NUMBERS:
                self._numbers.clear()
            known = self._numbers[value] = self._number(value)
        return known

    def decimal(self, value: float, places: int) -> str:
        """A number with exactly so many places after the point."""
        return _decimal(self._locale, value + 0.0, places)  # -0.0 is the same number

    def moment(self, value: datetime) -> str:
        """Date and time to the second, in UTC and saying so."""
        return _moment(self._locale, value.astimezone(UTC))

    def day(self, value: datetime) -> str:
        """The date alone, in UTC, the month in letters."""
        return format_date(value.astimezone(UTC), "long", locale=self._locale).translate(_SPACES)

    def _number(self, value: float) -> str:
        if isinstance(value, float) and not -1e15 < value < 1e15:
            return f"{value:.6g}"  # nobody reads three hundred digits
        shown = value if isinstance(value, int) else float(f"{value:.6g}")
        return format_decimal(shown, "#,##0.######", locale=self._locale).translate(_SPACES)

    def _written(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self.number(value) if isinstance(value, int | float) else value
            for name, value in values.items()
        }


# Every format of a report tells the same points and the same history of its domain.
@lru_cache(_KNOWN_NUMBERS)
def _decimal(locale: Locale, value: float, places: int) -> str:
    pattern = "#,##0." + "0" * places
    return format_decimal(value, pattern, locale=locale).translate(_SPACES)


@lru_cache(_KNOWN_MOMENTS)
def _moment(locale: Locale, value: datetime) -> str:
    when = format_datetime(value, "medium", tzinfo=UTC, locale=locale)
    return f"{when.translate(_SPACES)} UTC"


def known_languages() -> tuple[str, ...]:
    """The codes of all catalogues, in alphabetical order."""
    return tuple(sorted(path.stem for path in CATALOGUES.glob("*.po")))


@cache
def load_language(code: str) -> Language:
    """The language ``code``, such as ``de``, or ``de-AT`` for its texts with Austria's formats.

    Reads package data, once per process.  Raises InvalidSettings that lists the
    known languages, or names what is wrong in a catalogue.
    """
    try:
        locale = Locale.parse(code, sep="-")
    except (UnknownLocaleError, ValueError) as error:
        raise InvalidSettings(_unknown(code)) from error
    path = CATALOGUES / f"{locale.language}.po"
    respelt = str(locale) != code.replace("-", "_")  # babel takes deu, and de-Latn, for de
    if not _CODE.fullmatch(code) or respelt or locale.language not in known_languages():
        raise InvalidSettings(_unknown(code))
    try:
        with path.open("rb") as file:
            catalogue = read_po(file, abort_invalid=True)
        compiled = io.BytesIO()
        write_mo(compiled, catalogue)
        compiled.seek(0)
        texts = GNUTranslations(compiled)
    except (PoFileError, ValueError, LookupError) as error:  # syntax, bytes, charset
        raise InvalidSettings(f"catalogue {path}: {error}") from error
    texts.add_fallback(_Missing())
    spoken = Locale.parse(_FORMATS.get(str(locale), str(locale)))
    return Language(code, spoken, texts, _letters(catalogue))


def _letters(catalogue: Catalog) -> str:
    found: set[str] = set()
    for message in catalogue:
        if message.id:  # the first is the catalogue's own head
            found.update("".join(message.string or ()))
    return "".join(sorted(char for char in found if not char.isascii()))


def _unknown(code: str) -> str:
    return f"language {code!r} has no catalogue; known: {', '.join(known_languages())}"
