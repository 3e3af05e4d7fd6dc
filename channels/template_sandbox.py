"""Where operators' message templates run: enough of jinja2 to word a message, and no more.

What a template may say, read and call is listed here by name; the rest is
refused when it is compiled, or fails when it runs.  Values are escaped in pages
whatever the template says, and no template of a few lines can take the memory or
the time of a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import cache, wraps
from typing import Any

import msgspec
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from channels.readable import cut_chars, legible
from channels.template_filters import FILTERS, TESTS
from languages.language import Language

MAX_CHARS = 256 * 1024
"""Of what a template makes, and of any text on the way to it."""

MAX_STEPS = 100_000
"""Rounds of loops, calls and filters in one part of a message; our own page needs some hundred."""

CHARS_PER_STEP = 100
"""A filter, a method and a joint cost one step more for so many characters or items."""

MAX_SOURCE_CHARS = 64 * 1024
MAX_RANGE = 1000
MAX_NUMBER = 10**15

# fmt: off
_NODES = frozenset((
    "Add", "And", "Assign", "Call", "Compare", "Concat", "CondExpr", "Const", "Div", "Filter",
    "FloorDiv", "For", "Getattr", "Getitem", "If", "Keyword", "List", "Mod", "Mul", "Name", "Neg",
    "Not", "Operand", "Or", "Output", "Pos", "Scope", "Slice", "Sub", "Template", "TemplateData",
    "Test", "Tuple",
))
"""No macro, block, import or include: what collects output would hide it from the bounds."""
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "select", "selectattr", "sort", "string", "title", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount",
))
_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset((
        "capitalize", "casefold", "count", "endswith", "find", "isalpha", "isdigit", "islower",
        "isupper", "lower", "lstrip", "name", "partition", "rank", "removeprefix", "removesuffix",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title",
        "upper", "value",
    ))),
    (datetime, frozenset(("day", "hour", "isoformat", "minute", "month", "second", "year"))),
    (dict, frozenset(("get", "items", "keys", "values"))),
    (Language, frozenset(
        ("code", "day", "moment", "number", "plural", "right_to_left", "say", "translate")
    )),
    (LoopContext, frozenset((
        "cycle", "depth0", "depth", "first", "index", "index0", "last", "length", "nextitem",
        "previtem", "revindex", "revindex0",
    ))),
)  # fmt: skip
"""By the type of a value; of a struct its fields, of anything else nothing.  None of a text's
methods formats or pads: they make gigabytes out of nothing."""

_steps: ContextVar[int] = ContextVar("steps of the template that is being rendered")


def compile_template(source: str, *, page: bool) -> Template:
    """An operator's template, ready to render; ``page``: it makes HTML, so values are escaped.

    Raises TemplateSyntaxError, with the line, for whatever it may not say.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateSyntaxError(f"more than {MAX_SOURCE_CHARS:,} characters", 1)
    sandbox = _sandbox(page)
    try:
        tree = sandbox.parse(source)
        for node in tree.find_all(nodes.Node):
            _check(node)
        tree = _Bounding(sandbox).visit(tree)
        code = sandbox.compile(tree)
    except RecursionError as error:
        raise TemplateSyntaxError("nested too deeply", 1) from error
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


def render_bounded(template: Template, values: Mapping[str, Any], *, page: bool) -> str:
    """What ``template`` makes of ``values``, at most MAX_CHARS: a text is cut with a mark.

    Half a page is no page, so a page that is too long is an error.  Raises whatever
    the template does wrong: SecurityError, UndefinedError, TypeError and so on.
    """
    _steps.set(0)
    pieces: list[str] = []
    length = 0
    for piece in template.generate(values):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_CHARS:
            if page:
                raise SecurityError(f"a page of more than {MAX_CHARS:,} characters")
            break
    return cut_chars("".join(pieces), MAX_CHARS)


def line_of(error: BaseException) -> int | None:
    """The last line of a template on the way to ``error``."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    found, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "<template>":
            found = frame.tb_lineno
        frame = frame.tb_next
    return found


class _Sandbox(ImmutableSandboxedEnvironment):
    """Where one kind of template runs: pages, or plain texts."""

    intercepted_binops = frozenset(("+", "*", "%"))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template passes here; a text's own method reads all of the text."""
        _spend(1 + _size(getattr(__obj, "__self__", None), *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """What a loop runs over."""
        for item in items:
            _spend(1)
            yield item

    def weighed(self, value: Any) -> Any:
        """What is searched or sliced: ``call`` has counted its size."""
        return value

    def concatenate(self, *parts: Any) -> str:
        """The operator ``~``; what is not escaped yet will be where it is printed."""
        _spend(_size(*parts))
        joined = "".join(str(_printable(part)) for part in parts)
        _bounded(joined)
        return joined

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers with numbers, and texts joined: nothing repeated or formatted."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.concatenate(left, right)
        for value in (left, right):
            if not isinstance(value, int | float) or abs(value) > MAX_NUMBER:
                raise SecurityError(f"{operator} takes numbers up to {MAX_NUMBER:,}")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What is listed for the type of ``obj``, else its item of that name."""
        if _readable(obj, attribute):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        try:
            return obj[attribute]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item, else as getattr: filters such as ``map`` read attributes so."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str) and _readable(obj, argument):
                return getattr(obj, argument, self.undefined(obj=obj, name=argument))
            return self.undefined(obj=obj, name=argument)


class _Bounding(NodeTransformer):
    """Leads what could grow or go on for ever through the sandbox's counters."""

    def __init__(self, sandbox: _Sandbox) -> None:
        self._sandbox = sandbox

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._call("counted", [node.iter], node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("concatenate", node.nodes, node)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        if node.op in ("in", "notin"):
            node.expr = self._call("weighed", [node.expr], node)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._call("weighed", [node.node], node)
        return node

    def _call(self, name: str, arguments: list[Any], of: nodes.Node) -> nodes.Call:
        made = nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)
        made.set_lineno(of.lineno).set_environment(self._sandbox)
        return made


@cache
def _sandbox(page: bool) -> _Sandbox:
    sandbox = _Sandbox(
        autoescape=page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    filters = {name: sandbox.filters[name] for name in _FILTERS}
    filters |= {"join": _join, **FILTERS}
    sandbox.filters = {name: _bounding(made) for name, made in sorted(filters.items())}
    sandbox.tests |= TESTS
    sandbox.globals = {"range": _range}
    return sandbox


def _check(node: nodes.Node) -> None:
    """What a template must not even say.  Raises TemplateSyntaxError."""
    line = node.lineno
    match node:
        case nodes.EvalContextModifier() | nodes.ScopedEvalContextModifier():
            raise TemplateSyntaxError("values are always escaped; autoescape is refused", line)
        case nodes.Filter(name=name) if name not in _sandbox(False).filters:
            always = "values are always escaped; " if name in ("safe", "forceescape") else ""
            known = ", ".join(_sandbox(False).filters)
            raise TemplateSyntaxError(f"{always}filter {name!r} is refused; known: {known}", line)
        case nodes.Getattr(attr=name) | nodes.Name(name=name) if name.startswith("_"):
            raise TemplateSyntaxError(f"{name!r} is private; templates do not read it", line)
        case nodes.For(recursive=True):
            raise TemplateSyntaxError("recursive loops are refused", line)
        case nodes.List(items=items) | nodes.Tuple(items=items, ctx="load"):
            # A list of itself, twice, a few times over, is longer than any memory.
            if not all(isinstance(item, nodes.Const) for item in items):
                raise TemplateSyntaxError("lists hold nothing but texts and numbers", line)
    name = type(node).__name__
    if name not in _NODES:
        raise TemplateSyntaxError(f"{name.lower()} is refused in message templates", line)


def _spend(steps: int) -> None:
    done = _steps.get() + steps
    if done > MAX_STEPS:
        raise SecurityError(f"more than {MAX_STEPS:,} rounds of loops and calls")
    _steps.set(done)


def _size(*values: Any) -> int:
    """What reading the longest of these costs, in steps."""
    sized = (len(value) for value in values if isinstance(value, str | tuple | list | dict))
    return max(sized, default=0) // CHARS_PER_STEP


def _readable(obj: Any, attribute: str) -> bool:
    if attribute.startswith("_"):
        return False
    if isinstance(obj, msgspec.Struct):
        return attribute in obj.__struct_fields__
    return any(isinstance(obj, kind) and attribute in names for kind, names in _ATTRIBUTES)


def _printable(value: Any) -> Any:
    """A value that may be printed, made fit for a reader's eye: a text, a number, a moment."""
    match value:
        case None:
            return ""
        case Markup():
            return Markup(legible(value))  # noqa: S704 - without a character it is as escaped
        case str():
            return legible(value)
        case int() | float() | datetime():
            return value
        case Undefined():
            return str(value)  # which fails, and says what is undefined
    raise SecurityError(f"a {type(value).__name__} is not printed; join it, or take a part of it")


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_CHARS:
        raise SecurityError(f"a text of more than {MAX_CHARS:,} characters")
    return value


def _bounding(made: Any) -> Any:
    """The same filter, bounded; each makes a few times more of a text than there was at most."""

    @wraps(made)  # with the library's marks of what it wants to be passed
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _spend(1 + _size(*args))
        return _bounded(made(*args, **kwargs))

    return bounded


def _join(items: Iterable[Any], separator: str = "") -> str:
    """Texts in a row; a part that is escaped already is escaped again in a page."""
    return "".join(_joined(items, separator))


def _joined(items: Iterable[Any], separator: str) -> Iterator[str]:
    room = MAX_CHARS
    for place, item in enumerate(items):
        piece = (separator if place else "") + str(_printable(item))
        room -= len(piece) + 1
        if room < 0:
            raise SecurityError(f"a text of more than {MAX_CHARS:,} characters")
        yield piece


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"a range of more than {MAX_RANGE:,} numbers")
    return numbers
