"""Operators' own wording of messages, from a folder of templates.

A file is named ``<what>.<channel>.<part>.j2``: *what* is a variant
(``scan.completed.held``), an event type or ``all``, the most specific first;
``PARTS`` has the parts of each channel.  What such a template breaks costs its
wording, never the message: ours is sent instead, and the log says so once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import structlog
from jinja2 import Template, TemplateSyntaxError
from jinja2.exceptions import SecurityError

from channels.template_sandbox import compile_template, line_of, render_bounded
from languages.language import Language
from schemas.errors import InvalidSettings
from schemas.events import EventType
from schemas.notifications import VARIANTS, ChannelKind, Notification

log = structlog.get_logger("channels.operator_templates")

PARTS: Mapping[ChannelKind, tuple[str, ...]] = {
    ChannelKind.EMAIL: ("subject", "txt", "html"),
    ChannelKind.SLACK: ("title", "text"),
    ChannelKind.APPRISE: ("title", "text"),
}
"""What can be worded; a webhook is for machines and has nothing."""

PAGE = "html"

Name = tuple[str, str, str]
"""What, channel and part: a file's name in its pieces."""


class OperatorTemplates:
    """The templates of one folder, compiled."""

    def __init__(self, templates: Mapping[Name, Template]) -> None:
        self._templates = templates
        self._told: set[Name] = set()

    def texts(
        self, channel: ChannelKind, notification: Notification, shown: Mapping[str, Any]
    ) -> dict[str, str]:
        """The parts that the operator words, each bounded; those that fail or are blank are not."""
        made: dict[str, str] = {}
        for part in PARTS.get(channel, ()) if self._templates else ():
            for what in (notification.variant, notification.type.value, "all"):
                name = (what, channel.value, part)
                if name in self._templates:
                    text = self._render(name, shown)
                    if text.strip():
                        made[part] = text
                    break
        return made

    def reword(
        self, channel: ChannelKind, notification: Notification, message_id: str, t: Language
    ) -> Notification:
        """With the operator's title and text where there are any, as hostile as any other."""
        shown = {"notification": notification, "t": t, "message_id": message_id}
        texts = self.texts(channel, notification, shown)
        return msgspec.structs.replace(
            notification,
            title=texts.get("title", notification.title),
            summary=texts.get("text", notification.summary),
        )

    def _render(self, name: Name, shown: Mapping[str, Any]) -> str:
        try:
            return render_bounded(self._templates[name], shown, page=name[-1] == PAGE)
        except Exception as error:  # noqa: BLE001 - an operator's template may raise anything
            if name not in self._told:
                self._told.add(name)
                # Other errors may quote what a website wrote; these are in our own words.
                reason = str(error) if isinstance(error, SecurityError) else type(error).__name__
                file = ".".join((*name, "j2"))
                log.error("template_failed", template=file, line=line_of(error), error=reason)
            return ""


NO_TEMPLATES = OperatorTemplates({})


def check_templates(folder: Path | None) -> None:
    """Refuse a folder with a template that cannot be used, where a process starts.

    Raises InvalidSettings that names each file, the line and what is wrong with it.
    """
    _, problems = _read(folder)
    if problems:
        raise InvalidSettings("; ".join(problems))


@lru_cache(maxsize=8)
def load_templates(folder: Path | None) -> OperatorTemplates:
    """The usable templates of a folder, read once per process.

    For whoever sends: what ``check_templates`` refuses is logged, and ours is used.
    """
    templates, problems = _read(folder)
    for problem in problems:
        log.error("template_refused", reason=problem)
    return OperatorTemplates(templates)


def _read(folder: Path | None) -> tuple[dict[Name, Template], list[str]]:
    if folder is None:
        return {}, []
    if not folder.is_dir():
        return {}, [f"SCANHERALD_TEMPLATES_DIR: {folder} is no folder"]
    templates: dict[Name, Template] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.j2")):
        try:
            name = _name(path)
            source = path.read_text("utf-8")
            templates[name] = compile_template(source, page=name[-1] == PAGE)
        except TemplateSyntaxError as error:
            problems.append(f"template {path}, line {error.lineno}: {error.message}")
        except (InvalidSettings, OSError, UnicodeDecodeError) as error:
            problems.append(f"template {path}: {error}")
    return templates, problems


def _name(path: Path) -> Name:
    """A file's name in its pieces.  Raises InvalidSettings for one that no message would use."""
    what, _, rest = path.name.removesuffix(".j2").rpartition(".")
    what, _, channel = what.rpartition(".")
    kind = next((kind for kind in PARTS if kind.value == channel), None)
    if kind is None or rest not in PARTS[kind]:
        endings = (f"{kind.value}.{part}.j2" for kind, parts in PARTS.items() for part in parts)
        raise InvalidSettings(f"no message has such a part; endings are {', '.join(endings)}")
    known = sorted({"all", *VARIANTS, *map(str, EventType)})
    if what not in known:
        raise InvalidSettings(f"there is no {what!r}; known are {', '.join(known)}")
    return what, channel, rest
