"""The template of the HTML page: ours, or the operator's own in a sandbox.

The operator's template sees the same values, may extend ours, reads no other
file, reaches no private attribute and cannot switch escaping off.  Bounds on loops, calls
and the page guard against mistakes, not malice: texts that are doubled are not counted.
What it may use is listed here by name; the rest does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

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
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from renderers.html_look import TEMPLATES
from renderers.visible import Marks, prose, visible
from schemas.errors import InvalidSettings, RenderFailed

OURS = "report.html.j2"
"""The name under which the operator's template extends ours."""

MAX_STEPS = 5_000_000
"""Rounds of loops and calls in one page; our own page of 50,000 cookies needs under 100,000."""

MAX_PAGE_CHARS = 256 * 2**20
MAX_REPEATED = 100_000
"""Characters or items that ``*`` may make of a text or a list."""

_THEIRS = "html_template"

# fmt: off
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "prose", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort",
    "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
))
# fmt: on
_GLOBALS = frozenset(("cycler", "dict", "joiner", "namespace", "range"))
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
        yield from _our_template().generate(context)
        return
    template = _their_template(source)
    _steps.set(0)
    length = 0
    try:
        for piece in template.generate(context):
            length += len(piece)
            if length > MAX_PAGE_CHARS:
                raise SecurityError(f"the page has more than {MAX_PAGE_CHARS:,} characters")
            yield piece
    except Exception as error:
        # Whatever their template does wrong is theirs to read about.
        raise _failed(error) from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Where the operator's template runs."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template passes here; the rounds of its loops too."""
        done = _steps.get() + 1
        if done > MAX_STEPS:
            raise SecurityError(f"more than {MAX_STEPS:,} rounds of loops and calls")
        _steps.set(done)
        return super().call(__context, __obj, *args, **kwargs)

    def begin_round(self) -> str:
        """Called at the start of every round of a loop, so that ``call`` counts it."""
        return ""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, where a small template could ask for a huge result."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("texts are not formatted in a template")
        if operator == "**" and not (abs(left) < 2**64 and abs(right) < 64):
            raise SecurityError("a power is too large")
        if operator == "*":
            for items, times in ((left, right), (right, left)):
                if hasattr(items, "__len__") and len(items) * times > MAX_REPEATED:
                    raise SecurityError(f"more than {MAX_REPEATED:,} repeated characters or items")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of a text, only methods that cannot grow it."""
        if isinstance(obj, str) and attribute not in _TEXT_METHODS:
            return self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As getattr where an attribute is named."""
        if isinstance(obj, str) and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)


@cache
def _our_template() -> Template:
    """Compiled once per process."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, **_OPTIONS)
    environment.filters["prose"] = prose
    return environment.get_template(OURS)


@cache
def _sandbox() -> _Sandbox:
    sandbox = _Sandbox(loader=FunctionLoader(_load_ours), autoescape=True, **_OPTIONS)
    sandbox.filters["prose"] = prose
    sandbox.filters = {name: sandbox.filters[name] for name in sorted(_FILTERS)}
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
        _count_rounds(tree, sandbox)
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


def _count_rounds(tree: nodes.Template, sandbox: _Sandbox) -> None:
    """Begins every loop's body with a call, so that rounds without output are counted too."""
    for loop in tree.find_all(nodes.For):
        step = nodes.Call(nodes.EnvironmentAttribute("begin_round"), [], [], None, None)
        counted = nodes.Output([step], lineno=loop.lineno)
        loop.body.insert(0, counted.set_lineno(loop.lineno).set_environment(sandbox))


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


_OPTIONS: dict[str, Any] = {
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    "finalize": _make_visible,
}
