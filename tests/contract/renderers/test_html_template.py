"""The operator's own template: what it can do, and all that it cannot."""

from __future__ import annotations

import re
import tracemalloc

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers import html_template
from renderers.html_page import render_html
from renderers.html_template import check_template
from schemas.errors import InvalidSettings, RenderFailed
from schemas.presentation import Presentation
from schemas.scans import Scan

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def report():
    scan = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
            "page_count": 1, "cookies": [{"name": HOSTILE}, {"name": "plain"}]}  # fmt: skip
    return assess(
        msgspec.convert(scan, Scan),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        bounds=Bounds(50_000, 8192),
    )


def render(report, template: str) -> str:
    return render_html(report, Presentation(html_template=template)).decode("utf-8")


def test_a_template_extends_ours_and_fills_a_block(report):
    page = render(
        report,
        '{% extends "report.html.j2" %}{% block before %}<p>Hello {{ organisation }}</p>'
        "{% endblock %}{% block score %}{{ super() }}<p>Asked?</p>{% endblock %}",
    )
    assert "<p>Hello </p>" in page
    assert "<p>Asked?</p>" in page
    plain = render_html(report).decode("utf-8")
    assert page.replace("<p>Hello </p>", "").replace("<p>Asked?</p>", "") == plain


def test_a_template_of_its_own_sees_the_same_values_escaped_and_visible(report):
    page = render(
        report,
        "{% for cookie in report.cookies %}[{{ cookie.name }}]{% endfor %}"
        "{{ t.report }} {{ t.number(1234) }} "
        "{{ report.cookies | map(attribute='name') | list | last }}",
    )
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;‹U+202E›"
    assert page == f"[{shown}][plain]Cookie scan report 1,234 plain"


REFUSED_UNREAD = {
    "safe": "{{ report.cookies[0].name | safe }}",
    "safe in a chain": "{{ report.cookies | map(attribute='name') | join | safe }}",
    "autoescape": "{% autoescape false %}{{ report.cookies[0].name }}{% endautoescape %}",
    "autoescape nested": "{% if true %}{% autoescape false %}x{% endautoescape %}{% endif %}",
    "class": "{{ ''.__class__.__mro__ }}",
    "context": "{{ self._TemplateReference__context }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "attribute by filter": "{{ ''|attr('__class__') }}",
    "format": "{{ '%999999999d' | format(1) }}",
    "padding": "{{ 'x' | center(999999999) }}",
    "unclosed": "{% for x in y %}",
    "unknown tag": "{% debug %}",
}
REFUSED_RENDERED = {
    "safe by name": "{{ ['<b>'] | map('safe') | join }}",
    "class by item": "{{ ''['__class__'] }}",
    "struct": "{{ report['__struct_fields__'] }}",
    "another file": '{% include "report.css" %}',
    "a file above": '{% include "../../pyproject.toml" %}',
    "another base": '{% extends "/etc/passwd" %}',
    "import": '{% import "os" as os %}{{ os.system("id") }}',
    "huge range": "{% for a in range(999999999) %}{% endfor %}",
    "nested loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "deep recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "wide recursion": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "power": "{{ 9 ** 99999999 }}",
    "repetition": "{{ 'x' * 999999999 }}",
    "repeated list": "{{ 99999999 * [0] }}",
    "formatted text": "{{ '%999999999d' % 1 }}",
    "format method": "{{ '{0:999999999}'.format(1) }}",
    "format by item": "{{ '{0.__class__}'['format'](1) }}",
    "padding method": "{{ 'x'.ljust(999999999) }}",
    "markup by translation": "{{ ('x' | e).translate({120: '<script>'}) }}",
    "changed list": "{{ [].append(1) }}",
    "unknown name": "{{ lipsum(99999) }}",
    "no such value": "{{ report.nothing }}",
    "division": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("attack", REFUSED_UNREAD)
def test_what_a_template_must_not_say_is_refused_before_it_renders(attack):
    with pytest.raises(InvalidSettings, match="HTML template fails on line 3: "):
        check_template("one\ntwo\n" + REFUSED_UNREAD[attack])


@pytest.mark.parametrize("attack", {**REFUSED_UNREAD, **REFUSED_RENDERED})
def test_an_attack_in_a_template_fails_the_format_and_names_the_line(report, attack, monkeypatch):
    monkeypatch.setattr(html_template, "MAX_STEPS", 20_000)
    source = {**REFUSED_UNREAD, **REFUSED_RENDERED}[attack]
    with pytest.raises(RenderFailed, match="HTML template fails on line 3: ") as caught:
        render(report, "one\ntwo\n" + source)
    assert caught.value.__cause__ is not None


def test_a_page_without_end_is_stopped(report, monkeypatch):
    monkeypatch.setattr(html_template, "MAX_PAGE_CHARS", 10_000)
    with pytest.raises(RenderFailed, match="10,000 characters"):
        render(report, "{% for a in range(9999) %}{{ organisation }}0123456789{% endfor %}")


CAPTURED = {
    "set": "{% set text %}PIECES{% endset %}",
    "filter": "{% filter upper %}PIECES{% endfilter %}",
    "macro": "{% macro f() %}PIECES{% endmacro %}{% set text = f() %}",
    "call": "{% macro f() %}{{ caller() }}{% endmacro %}{% set text %}"
    "{% call f() %}PIECES{% endcall %}{% endset %}",
    "block": "{% set text %}{% for a in range(200) %}{{ self.b() }}{% endfor %}{% endset %}"
    "{% if false %}{% block b %}PIECES{% endblock %}{% endif %}",
}


@pytest.mark.parametrize("pieces", [
    "{% for b in range(9999) %}0123456789{% endfor %}",
    "{% for b in range(9999) %}{{ report.identity.domain }}{% endfor %}",
])  # fmt: skip
@pytest.mark.parametrize("capture", CAPTURED)
def test_what_is_never_shown_counts_too(report, capture, pieces, monkeypatch):
    monkeypatch.setattr(html_template, "MAX_PAGE_CHARS", 10_000)
    with pytest.raises(RenderFailed, match="10,000 characters"):
        render(report, CAPTURED[capture].replace("PIECES", pieces))


GROWING = {
    "joined texts": "{% set n = namespace(t='x' | upper) %}{% for a in range(60) %}"
    "{% set n.t = n.t ~ n.t %}{% endfor %}",
    "added texts": "{% set n = namespace(t='x' | upper) %}{% for a in range(60) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}",
    "joined by a long text": "{% set n = namespace(t='x,y') %}{% for a in range(60) %}"
    "{% set n.t = n.t | list | join(n.t) %}{% endfor %}",
    "captured texts": "{% set n = namespace(t='x') %}{% for a in range(60) %}"
    "{% set t %}{{ n.t }}{{ n.t }}{% endset %}{% set n.t = t %}{% endfor %}",
    "macros that double": "{% macro f(n) %}{% if n %}{% set t = f(n - 1) %}{{ t }}{{ t }}"
    "{% else %}xxxxxxxx{% endif %}{% endmacro %}{{ f(60) }}",
    "replaced texts": "{% set n = namespace(t='xx') %}{% for a in range(60) %}"
    "{% set n.t = n.t | replace('x', n.t) %}{% endfor %}",
    "nested lists": "{% set n = namespace(t=[1]) %}{% for a in range(60) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
    "added lists": "{% set n = namespace(t=[1]) %}{% for a in range(60) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}",
    "squared numbers": "{% set n = namespace(t=9) %}{% for a in range(60) %}"
    "{% set n.t = n.t * n.t %}{% endfor %}{{ n.t }}",
    "the library behind a number": "{{ t.decimal }}",
    "the library behind a number, by item": "{{ t['decimal'] }}",
    "chained filters": "{% for a in range(4000000) | list | map('string') | list %}{% endfor %}",
}


@pytest.mark.parametrize("growth", GROWING)
def test_nothing_grows_beyond_its_bound(report, growth):
    """With the real bounds: all are refused within a fraction of the memory they ask for."""
    tracemalloc.start()
    try:
        with pytest.raises((RenderFailed, InvalidSettings)):
            render(report, GROWING[growth])
        assert tracemalloc.get_traced_memory()[1] < 600 * 2**20
    finally:
        tracemalloc.stop()


def test_the_refusal_of_safe_says_why():
    with pytest.raises(InvalidSettings, match="values are always escaped"):
        check_template("{{ title | safe }}")
    with pytest.raises(InvalidSettings, match="values are always escaped"):
        check_template("{% autoescape false %}{% endautoescape %}")


def test_steps_are_counted_for_each_page_anew(report, monkeypatch):
    monkeypatch.setattr(html_template, "MAX_STEPS", 1_000)
    template = "{% for a in range(900) %}{% endfor %}done"
    assert [render(report, template) for _ in range(3)] == ["done"] * 3


def test_our_own_page_needs_few_steps_in_the_sandbox(report, monkeypatch):
    monkeypatch.setattr(html_template, "MAX_STEPS", 2_000)
    page = render(report, '{% extends "report.html.j2" %}')
    assert re.search("</html>", page)
