"""Every language says everything: complete catalogues, the same placeholders, no stray English."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

import languages.language
from compliance.assess import Bounds, assess
from compliance.drift import FIELDS
from compliance.figures import _LABELS
from compliance.rules import known_packs, load_pack
from languages.language import CATALOGUES, Language, known_languages, load_language
from renderers.html_page import render_html
from renderers.visible import is_hidden
from renderers.wording import change_values
from schemas.errors import InvalidSettings
from schemas.notifications import FACTS, REASONS, VARIANTS
from schemas.reports import Category, HistoryPoint, Party, Report, Severity
from schemas.scans import Scan, decode_scan
from tasks.sample import FINDING

ROOT = Path(__file__).parents[2]
ROOMS = ("channels", "cli", "compliance", "listener", "renderers", "tasks")
OTHERS = [code for code in known_languages() if code != "en"]

every_language = pytest.mark.parametrize("code", known_languages())
every_translation = pytest.mark.parametrize("code", OTHERS)


@cache
def catalogue(code: str) -> Catalog:
    return read_po(io.BytesIO((CATALOGUES / f"{code}.po").read_bytes()), abort_invalid=True)


def messages(code: str) -> dict[str, tuple[str, ...]]:
    """Every key with its texts: one, or one for each plural form."""
    return {
        message.id if isinstance(message.id, str) else message.id[0]: (
            (message.string,) if isinstance(message.string, str) else tuple(message.string)
        )
        for message in catalogue(code)
        if message.id
    }


def pack_texts() -> set[str]:
    """Every text of every shipped rule pack that a reader sees."""
    texts: set[str | None] = set()
    for name in known_packs():
        pack = load_pack(name)
        texts.add(pack.title)
        for rule in pack.rules:
            texts |= {rule.title, rule.explanation, rule.action, rule.source, rule.scope}
    return {text for text in texts if text}


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"{(\w*)}", text))


# --- catalogues


@every_translation
def test_a_catalogue_has_every_key_of_the_english_one_and_every_text_of_the_packs(code):
    assert set(messages(code)) == set(messages("en")) | pack_texts() | {FINDING}


def test_a_language_names_the_letters_that_its_texts_have_beside_ascii():
    letters = load_language("de").letters
    assert set("äöüß„") <= set(letters)
    assert "é" not in letters
    assert letters == "".join(sorted(set(letters)))
    assert not any(char.isascii() for char in letters)


@every_language
def test_no_key_stands_twice(code):
    keys = re.findall(r"^msgid (.+)$", (CATALOGUES / f"{code}.po").read_text("utf-8"), re.MULTILINE)
    assert [key for key in keys if keys.count(key) > 1] == []


@every_language
def test_a_catalogue_has_every_plural_form_and_no_empty_or_fuzzy_entry(code):
    assert catalogue(code).locale_identifier == code
    for message in catalogue(code):
        if not message.id:
            continue
        assert not message.fuzzy, message.id
        assert not isinstance(message.id, str) or not message.id.startswith("plural.")
    for key, texts in messages(code).items():
        forms = catalogue(code).num_plurals if key.startswith("plural.") else 1
        assert len(texts) == forms, key
        assert all(text.strip() == text and text for text in texts), key


@every_translation
def test_a_translation_fills_the_same_placeholders(code):
    for key, texts in messages(code).items():
        wanted = placeholders(messages("en").get(key, (key,))[0])
        assert all(placeholders(text) == wanted for text in texts), key


@every_translation
def test_no_sentence_is_left_in_english(code):
    english = messages("en")
    left = [key for key, texts in messages(code).items() if texts == english.get(key, (key,))]
    assert not [
        key for key in left if len(re.findall(r"\b[a-z]{2,}\b", english.get(key, (key,))[0])) > 2
    ]


@every_language
def test_no_text_holds_a_character_that_reports_would_mark(code):
    for texts in messages(code).values():
        for text in texts:
            assert not [char for char in text if is_hidden(ord(char))]


@every_language
def test_the_names_of_sheets_fit_a_workbook(code):
    names = [texts[0] for key, texts in messages(code).items() if key.startswith("sheet.")]
    assert len({name.lower() for name in names}) == len(names)
    assert not [name for name in names if len(name) > 31 or set(name) & set("[]:*?/\\")]


def test_no_key_hides_behind_a_word_of_the_language_itself():
    # Templates write t.key: an attribute of the same name would win.
    assert not [key for key in messages("en") if hasattr(Language, key)]


# --- keys in the code


def yielded(path: str) -> set[str]:
    """The first word of everything that the functions of a file yield."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Yield):
            value = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
            if isinstance(value, ast.Constant):
                found.add(value.value)
    return found


FAMILIES: dict[str, Callable[[], Iterable[str]]] = {
    "severity.": lambda: Severity,
    "category.": lambda: Category,
    "party.": lambda: Party,
    "field.": lambda: FIELDS,
    "lifetime.": lambda: _LABELS,
    "limit.": lambda: {*yielded("compliance/limits.py"), *yielded("compliance/falls.py")},
    "exemption.": lambda: {*yielded("compliance/exemptions.py"), "plausible"},
    "verdict.": lambda: ("plausible", "questionable"),
    "legend_": lambda: ("before", "after", "unknown"),
    "drift.": lambda: ("added", "removed"),
    "fact.": lambda: FACTS,
    "reason.": lambda: REASONS,
    "message.": lambda: (
        f"{variant}.{part}"
        for variant, names in VARIANTS.items()
        for part in ("title", "summary")
        if part == "title" or "said" not in names
    ),
}
"""Keys made of a start and a word: every word that the code can put there."""


class Uses(ast.NodeVisitor):
    """The keys that code asks a Language for: whole ones, and the starts of made ones."""

    NAMES = frozenset({"t", "_t", "texts", "language"})

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.starts: set[str] = set()
        self.words: set[str] = set()
        self.named: set[str] = set()
        self.open = False

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.words.add(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._is_language(node.value):
            self._add(node.slice)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        said = node.func
        if isinstance(said, ast.Attribute) and self._is_language(said.value) and node.args:
            if said.attr == "say":
                self._add(node.args[0])
            if said.attr == "plural":
                self._add(node.args[0], "plural.")
        self.generic_visit(node)

    def _is_language(self, node: ast.expr) -> bool:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        return name in self.NAMES

    def _add(self, node: ast.expr, start: str = "") -> None:
        match node:
            case ast.Constant(value=str(key)):
                self.keys.add(start + key)
            case ast.IfExp(body=body, orelse=other):
                self._add(body, start)
                self._add(other, start)
            case ast.JoinedStr(values=[ast.Constant(value=str(first)), *_]):
                self.starts.add(start + first)
            case _:
                self.open = True  # t[key]: any word of the file may be the key


def used() -> Uses:
    """Everything that code and templates of all rooms ask of the catalogues."""
    uses = Uses()
    for path in (path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py")):
        source = path.read_text("utf-8")
        if "from languages.language import" in source:
            file = Uses()
            file.visit(ast.parse(source))
            uses.keys |= file.keys
            uses.starts |= file.starts
            uses.words |= file.words
            uses.named |= file.words if file.open else set()
    for path in ROOT.glob("[cr]*/templates/*.j2"):
        source = path.read_text("utf-8")
        attributes = set(re.findall(r"(?<![\w.])t\.([a-z]\w*)", source))
        uses.keys |= {key for key in attributes if not hasattr(Language, key)}
        uses.keys |= set(re.findall(r"""(?<![\w.])t(?:\.say\(|\[)["']([\w.]+)["'][\],)]""", source))
        uses.keys |= {
            f"plural.{noun}" for noun in re.findall(r"""\bt\.plural\(["'](\w+)["']""", source)
        }
        uses.starts |= set(re.findall(r"""\bt\[["']([\w.]+)["'] ~""", source))
    return uses


def test_every_key_that_the_code_asks_for_is_in_the_english_catalogue():
    keys = set(messages("en"))
    uses = used()
    made = {start + word for start in uses.starts & set(FAMILIES) for word in FAMILIES[start]()}
    assert uses.keys | made <= keys
    assert len(uses.keys) > 100
    assert not [start for start in uses.starts if not any(key.startswith(start) for key in keys)]


def test_every_key_of_the_english_catalogue_is_used():
    uses = used()
    made = {start + str(word) for start, words in FAMILIES.items() for word in words()}
    made |= {start + word for start in uses.starts - set(FAMILIES) for word in uses.words}
    assert set(messages("en")) - uses.keys - uses.named - made == set()


# --- loading


@pytest.fixture
def no_memo() -> Iterator[None]:
    """Catalogues are read once per process; a test of reading them starts and leaves none."""
    load_language.cache_clear()
    yield
    load_language.cache_clear()


def test_a_region_speaks_its_language_with_its_own_formats():
    austrian = load_language("de-AT")
    assert austrian.code == "de-AT"
    assert austrian["scope"] == load_language("de")["scope"]
    assert load_language("en-US").moment(datetime(2026, 9, 7, tzinfo=UTC)).startswith("Sep 7, 2026")
    assert load_language("fr-CH")["yes"] == "oui"


@pytest.mark.parametrize(
    "code", ["xx", "tlh", "vo", "", "de-XX", "../en", "en.po", "de_AT", "deu", "de-Latn"]
)
def test_an_unknown_language_is_refused_with_the_known_ones(code):
    with pytest.raises(InvalidSettings, match=", ".join(known_languages())) as caught:
        load_language(code)
    assert repr(code) in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b'msgid "yes"\nmsgstr "yes"\nnonsense\n',
        b'msgid "yes"\nmsgstr "\xff"\n',
        b'msgid ""\nmsgstr "Content-Type: text/plain; charset=klingon\\n"\n',
    ],
    ids=["syntax", "bytes", "charset"],
)
def test_a_broken_catalogue_is_named(data, tmp_path, monkeypatch, no_memo):
    (tmp_path / "nl.po").write_bytes(data)
    monkeypatch.setattr(languages.language, "CATALOGUES", tmp_path)
    with pytest.raises(InvalidSettings, match=re.escape(str(tmp_path / "nl.po"))):
        load_language("nl")


def test_adding_a_language_is_adding_a_catalogue(tmp_path, monkeypatch, no_memo):
    text = 'msgid ""\nmsgstr "Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\nmsgid "yes"\n'
    (tmp_path / "he.po").write_text(f'{text}msgstr "כן"\n', "utf-8")
    monkeypatch.setattr(languages.language, "CATALOGUES", tmp_path)
    assert known_languages() == ("he",)
    hebrew = load_language("he")
    assert hebrew["yes"] == "כן"
    assert hebrew.right_to_left


def test_a_text_that_is_missing_is_an_error_and_a_pack_text_stays_as_it_is():
    t = load_language("de")
    with pytest.raises(KeyError, match="nowhere"):
        t["nowhere"]
    with pytest.raises(KeyError, match="nowhere"):
        t.plural("nowhere", 2)
    assert t.translate("A rule of our own") == "A rule of our own"
    assert t.translate("") == ""


# --- numbers and dates


@pytest.mark.parametrize(
    ("code", "number", "decimal", "moment", "day"),
    [
        ("en", "1,234.5", "−0.50", "7 Sept 2026, 04:05:06 UTC", "7 September 2026"),
        ("de", "1.234,5", "−0,50", "07.09.2026, 04:05:06 UTC", "7. September 2026"),
        ("fr", "1 234,5", "−0,50", "7 sept. 2026, 04:05:06 UTC", "7 septembre 2026"),
        ("es", "1.234,5", "−0,50", "7 sept 2026, 4:05:06 UTC", "7 de septiembre de 2026"),
    ],
)
def test_numbers_and_dates_are_written_as_the_language_does(code, number, decimal, moment, day):
    t = load_language(code)
    when = datetime(2026, 9, 7, 6, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    assert t.number(1234.5) == number
    assert f"−{t.decimal(0.5, 2)}" == decimal
    assert t.moment(when) == moment
    assert t.day(when) == day


@every_language
def test_numbers_and_dates_hold_no_space_but_the_plain_one(code):
    t = load_language(code)
    when = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    said = [t.number(10**12), t.number(1.5e9), t.decimal(1e9, 2), t.moment(when), t.day(when),
            t.plural("cookie", 1_234_567)]  # fmt: skip
    assert not [char for char in "".join(said) if is_hidden(ord(char))]
    assert not t.right_to_left


@pytest.mark.parametrize(
    ("code", "none", "one", "many"),
    [
        ("en", "0 cookies", "1 cookie", "1,000 cookies"),
        ("de", "0 Cookies", "1 Cookie", "1.000 Cookies"),
        ("fr", "0 cookie", "1 cookie", "1 000 cookies"),
        ("es", "0 cookies", "1 cookie", "1.000 cookies"),
    ],
)
def test_a_count_agrees_with_its_noun(code, none, one, many):
    t = load_language(code)
    assert [t.plural("cookie", count) for count in (0, 1, 1000)] == [none, one, many]


# --- a report


class Seen(HTMLParser):
    """What a page says: its texts, and the attributes that are read aloud or shown."""

    SILENT = frozenset({"script", "style"})
    SPOKEN = frozenset({"aria-label", "title", "placeholder", "alt", "summary"})

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._tag = ""
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.texts += [value for name, value in attrs if name in self.SPOKEN and value]

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag not in self.SILENT and data.strip():
            self.texts.append(" ".join(data.split()))


def changed(scan: Scan) -> Scan:
    """The scan before: some cookies gone, some come, some with other properties."""
    kept = [
        msgspec.structs.replace(
            cookie, category="advertising", cookie_type="third-party", secure=not cookie.secure
        )
        for cookie in (scan.cookies or ())[2:]
    ]
    gone = msgspec.structs.replace(kept[0], name="gone-since")
    return msgspec.structs.replace(scan, cookies=(gone, *kept))


def report_in(code: str, scan: Scan, *, max_cookies: int = 50_000) -> Report:
    earlier = HistoryPoint(
        scan_id="earlier", finished_at=datetime(2026, 1, 2, tzinfo=UTC), score=None
    )
    return assess(
        scan,
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        previous=changed(scan),
        history=[earlier],
        language=code,
        bounds=Bounds(max_cookies=max_cookies, max_string_bytes=8192),
    )


def strings(value: object) -> Iterator[str]:
    """Every text that the scanner sent."""
    match value:
        case str():
            yield " ".join(value.split())
        case dict():
            yield from (text for item in value.items() for part in item for text in strings(part))
        case list():
            yield from (text for part in value for text in strings(part))


def english(code: str) -> list[re.Pattern[str]]:
    """The English texts that this language says otherwise, numbers and names left open."""
    own = messages(code)
    said = [text for key, texts in messages("en").items() if own[key] != texts for text in texts]
    said += [text for text in pack_texts() if own[text] != (text,)]
    return [
        re.compile(".+".join(map(re.escape, re.split(r"{\w+}", text))))
        for text in said
        if re.sub(r"{\w+}|\W", "", text)
    ]


@every_translation
def test_a_report_holds_no_english_of_ours(code, scans):
    data = max(scans, key=len)
    sent = set(strings(msgspec.json.decode(data)))
    scan = decode_scan(data)
    broken = msgspec.structs.replace(scan, status="aborted", error="timeout", page_count=0)
    t = load_language(code)
    for report in (report_in(code, scan), report_in(code, broken, max_cookies=3)):
        said = {
            shown
            for text in Seen(render_html(report)).texts
            for part in (text, *re.split(r" · |: ", text))
            for shown in (part, part.strip("0123456789.,() "))
            if shown and part not in sent and text not in sent
        }
        stray = {text for pattern in english(code) for text in said if pattern.fullmatch(text)}
        assert not stray
        assert {t["section.findings"], t["drift.changed"], t["notice"]} <= said


@every_translation
def test_a_change_is_told_in_words_of_the_language(code, scans):
    t = load_language(code)
    report = report_in(code, decode_scan(max(scans, key=len)))
    told = {
        (change.field, value, said)
        for change in report.drift.changed
        for value, said in zip((change.before, change.after), change_values(change, t), strict=True)
    }
    assert ("category", "advertising", t["category.advertising"]) in told
    assert ("party", "third", t["party.third"]) in told
    assert {("secure", "yes", t["yes"]), ("secure", "no", t["no"])} <= told
