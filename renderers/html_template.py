"""The template of the HTML page: ours, or the operator's own in a sandbox.

The operator's template sees the same values, may extend ours, reads no other
file, reaches no private attribute, cannot switch escaping off and cannot take
the worker's memory: rounds, calls, the work of filters and what it prints are
counted, and every text, list and number on the way is bounded.  Slow work inside
those bounds ends at the task's time limit.  What it may use is listed here by
name; the rest does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache, wraps
from inspect import isgenerator
from typing import Any, cast

from jinja2 import (
    Environment,
    FileSystemLoader,
    FunctionLoader,
    StrictUndefined,
    Template,
    TemplateSyntaxError,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, Macro, markup_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from languages.language import Language
from renderers.html_look import TEMPLATES
from renderers.visible import Marks, prose, visible
from schemas.errors import InvalidSettings, RenderFailed

OURS = "report.html.j2"
"""The name under which the operator's template extends ours."""

MAX_STEPS = 5_000_000
"""Rounds of loops and calls in one page; our own page of 50,000 cookies needs under 100,000."""

MAX_PAGE_CHARS = 128 * 2**20
"""Printed for one page, what is only captured or filtered too."""
MAX_TEXT_CHARS = 1_000_000
"""Of any text that a template makes on its way to the page."""
MAX_NUMBER = 10**15

PER_STEP = 10
"""A filter costs one step more for so many characters or items that it is given."""

_THEIRS = "html_template"

# fmt: off
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "prose", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort",
    "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
))
# fmt: on
_GLOBALS = frozenset(("cycler", "joiner", "namespace", "range"))
_OF_LANGUAGE = frozenset(
    ("code", "day", "moment", "number", "plural", "right_to_left", "say", "translate")
)
# fmt: off
_TEXT_METHODS = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isascii",
    "isdigit", "islower", "isprintable", "isspace", "isupper", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper",
))
"""None that formats, pads or translates: they make markup or gigabytes out of nothing."""
# fmt: on

_steps: ContextVar[int] = ContextVar("steps of the template that is being rendered")
_printed: ContextVar[int] = ContextVar("characters it has printed so far")


def check_template(source: str) -> None:
    """Compile the operator's template; renders nothing.

    Raises InvalidSettings that names the line: bad syntax, an unknown filter,
    escaping switched off, a private attribute.
    """
    try:
        _their_template(source)
    except RenderFailed as error:
        raise InvalidSettings(str(error)) from error


def render_pieces(source: str, context: dict[str, Any]) -> Iterator[str]:
    """The page, piece by piece, from the operator's template ``source``, or ours where empty.

    Raises RenderFailed with the line of the operator's template that failed.
    """
    if not source:
        yield from our_template().generate(context)
        return
    template = _their_template(source)
    _steps.set(0)
    _printed.set(0)
    try:
        yield from template.generate(context)
    except Exception as error:
        # Whatever their template does wrong is theirs to read about.
        raise _failed(error) from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Where the operator's template runs."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template passes here; the rounds of its loops too."""
        _spend(1)
        made = super().call(__context, __obj, *args, **kwargs)
        return made if isinstance(__obj, Macro | BlockReference) else _bounded(made)

    def begin(self, chars: int) -> str:
        """Called where a body starts, with the length of what it prints word for word.

        So ``call`` counts rounds that print nothing, and a body is never free.
        """
        _print(chars)
        return ""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers with numbers, and texts joined: nothing repeated or formatted."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.concatenate(left, right)
        for value in (left, right):
            if not isinstance(value, int | float) or abs(value) > MAX_NUMBER:
                raise SecurityError(f"{operator} takes numbers up to {MAX_NUMBER:,}")
        if operator == "**" and abs(right) > 64:
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)

    def concatenate(self, *parts: Any) -> str:
        """The operator ``~``; in a part that is escaped already the others are escaped."""
        _spend(1 + sum(len(part) for part in parts if isinstance(part, str)) // PER_STEP)
        joined: str = _bounded(markup_join([_plain(part) for part in parts]))
        return joined

    def listed(self, *items: Any) -> tuple[Any, ...]:
        """A list or tuple of the template; one of itself, a few times over, outgrows any memory."""
        for item in items:
            inner = item if isinstance(item, tuple) else ()
            if isinstance(item, list | dict) or any(isinstance(i, _NESTING) for i in inner):
                raise SecurityError("lists are nested too deeply")
        return items

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of a text, only methods that cannot grow it; of a language, what speaks."""
        if isinstance(obj, Language) and attribute not in _OF_LANGUAGE:
            return obj[attribute]
        if isinstance(obj, str) and attribute not in _TEXT_METHODS:
            return self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As getattr where an attribute is named."""
        if isinstance(obj, Language):
            return obj[argument]  # never an attribute, as jinja2 would try next
        if isinstance(obj, str) and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)


@cache
def our_template() -> Template:
    """Our page, read and compiled once per process: the first call takes 100 ms."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, **_OPTIONS)
    environment.filters["prose"] = prose
    return environment.get_template(OURS)


@cache
def _sandbox() -> _Sandbox:
    options = {**_OPTIONS, "finalize": _count_visible}
    sandbox = _Sandbox(loader=FunctionLoader(_load_ours), autoescape=True, **options)
    sandbox.filters["prose"] = prose
    sandbox.filters["join"] = _join
    sandbox.filters = {name: _bounding(sandbox.filters[name]) for name in sorted(_FILTERS)}
    sandbox.globals = {name: sandbox.globals[name] for name in sorted(_GLOBALS)}
    return sandbox


def _load_ours(name: str) -> str | None:
    return (TEMPLATES / OURS).read_text("utf-8") if name == OURS else None


@lru_cache(maxsize=8)
def _their_template(source: str) -> Template:
    sandbox = _sandbox()
    try:
        tree = sandbox.parse(source, _THEIRS, _THEIRS)
        _refuse(tree)
        tree = _Bounding(sandbox).visit(tree)
        code = sandbox.compile(tree, _THEIRS, _THEIRS)
    except (TemplateSyntaxError, RecursionError) as error:
        raise _failed(error) from error
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


def _refuse(tree: nodes.Template) -> None:
    """What a template must not even say."""
    for switch in tree.find_all(nodes.EvalContextModifier):
        raise TemplateSyntaxError(
            "values are always escaped; {% autoescape %} is refused", switch.lineno
        )
    for used in tree.find_all(nodes.Filter):
        if used.name not in _FILTERS:
            safe = "values are always escaped; " if used.name in ("safe", "forceescape") else ""
            raise TemplateSyntaxError(
                f"{safe}filter {used.name!r} is refused; known are {', '.join(sorted(_FILTERS))}",
                used.lineno,
            )
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_"):
            raise TemplateSyntaxError(
                f"attribute {attribute.attr!r} is private; templates do not read it",
                attribute.lineno,
            )


class _Bounding(NodeTransformer):
    """Leads what could grow or go on for ever through the sandbox's counters."""

    def __init__(self, sandbox: _Sandbox) -> None:
        self._sandbox = sandbox

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """A round of a loop."""
        return self._counting(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """A call of a macro."""
        return self._counting(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        """What ``caller()`` prints."""
        return self._counting(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        """A block, which may be called again and again."""
        return self._counting(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """The operator ``~``."""
        self.generic_visit(node)
        return self._call("concatenate", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        """A list, as a tuple."""
        self.generic_visit(node)
        return self._call("listed", node.items, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """A tuple that is read, not one of names to assign to."""
        self.generic_visit(node)
        return self._call("listed", node.items, node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        """Nothing needs one."""
        raise TemplateSyntaxError("dicts are refused", node.lineno)

    def _counting(self, node: Any) -> nodes.Node:
        printed = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        first = nodes.Output([self._call("begin", [nodes.Const(printed)], node)])
        node.body.insert(0, first.set_lineno(node.lineno).set_environment(self._sandbox))
        return cast(nodes.Node, node)

    def _call(self, name: str, arguments: list[Any], of: nodes.Node) -> nodes.Call:
        made = nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)
        made.set_lineno(of.lineno).set_environment(self._sandbox)
        return made


_NESTING = (list, tuple, dict)


def _spend(steps: int) -> None:
    done = _steps.get() + steps
    if done > MAX_STEPS:
        raise SecurityError(f"more than {MAX_STEPS:,} rounds of loops and calls")
    _steps.set(done)


def _print(chars: int) -> None:
    printed = _printed.get() + chars
    if printed > MAX_PAGE_CHARS:
        raise SecurityError(f"the page has more than {MAX_PAGE_CHARS:,} characters")
    _printed.set(printed)


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        raise SecurityError(f"a text of more than {MAX_TEXT_CHARS:,} characters")
    return value


def _plain(value: Any) -> Any:
    """A value that becomes text: never a list, whose text may be longer than it looks."""
    if isinstance(value, _NESTING):
        raise SecurityError("a list is not printed; join it, or take a part of it")
    return value


def _bounding(made: Any) -> Any:
    """The same filter, with its work counted and what it makes bounded."""

    @wraps(made)  # with the library's marks of what it wants to be passed
    def bounded(*args: Any, **kwargs: Any) -> Any:
        sized = (len(value) for value in args if isinstance(value, str | tuple | list | range))
        _spend(1 + max(sized, default=0) // PER_STEP)
        result = made(*args, **kwargs)
        return _counted(result) if isgenerator(result) else _bounded(result)

    return bounded


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _spend(1)
        yield item


def _join(items: Iterable[Any], separator: str = "") -> str:
    """Texts in a row, escaped where they are not yet."""
    room = MAX_TEXT_CHARS
    parts: list[Markup] = []
    for place, item in enumerate(_counted(items)):
        if place and separator:
            parts.append(escape(separator))
        parts.append(escape(_plain(item)))
        room -= len(parts[-1]) + len(separator)
        if room < 0:
            raise SecurityError(f"a text of more than {MAX_TEXT_CHARS:,} characters")
    return Markup("").join(parts)


def _failed(error: BaseException) -> RenderFailed:
    line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error)
    where = f" on line {line}" if line else ""
    said = str(error) or type(error).__name__
    return RenderFailed(f"the HTML template fails{where}: {said}")


def _line(error: BaseException) -> int | None:
    """The last line of the operator's template on the way to the error."""
    found, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == _THEIRS:
            found = frame.tb_lineno
        frame = frame.tb_next
    return found


def _make_visible(value: Any) -> Any:
    """Marks what a reader would not see, in everything a template prints."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return value if value.isascii() and value.isprintable() else visible(value, Marks())
    return value


def _count_visible(value: Any) -> Any:
    shown = _make_visible(_plain(value))
    _print(len(shown) if isinstance(shown, str) else 0)
    return shown


_OPTIONS: dict[str, Any] = {
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    "finalize": _make_visible,
}
