"""Who may open a connection: the list is short, and a new way out has to be put on it.

Whatever leads to an address that a person typed goes through ``GuardedHttp``; the
others go where the operator's settings say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from channels.guarded_http import GuardedHttp
from channels.registry import CHANNELS
from schemas.notifications import ChannelKind
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "listener", "tasks", "compliance", "renderers", "channels", "store", "languages")

WAYS = frozenset(
    (
        "aiohttp", "aiosmtpd", "apprise", "asyncio", "ftplib", "http.client", "http.server",
        "httpcore", "httpx", "imaplib", "obstore", "pycurl", "requests", "slack_sdk", "smtplib",
        "socket", "socketserver", "ssl", "subprocess", "urllib.request", "urllib3", "websockets",
        "xmlrpc",
    )
)  # fmt: skip
"""Modules by which Python reaches the network, or starts what does."""

TAKEN = {
    # to what subscribers typed
    "channels/guarded_http.py": {"httpcore", "httpx", "socket", "ssl"},  # the guard itself
    "channels/guarded_requests.py": {"requests", "http.client"},  # the guard under Apprise
    "channels/apprise.py": {"apprise"},  # only ever on top of the former
    "channels/destinations.py": {"httpx"},  # reads URLs
    "channels/slack.py": {"httpx", "slack_sdk"},  # reads URLs; builds blocks
    # to what the operator set
    "channels/smtp.py": {"smtplib", "ssl"},
    "listener/config_check.py": {"socket"},  # does the collector of traces listen?
    "store/artifacts.py": {"obstore"},
    "tasks/fetch.py": {"obstore"},
    # on this machine
    "cli/embedded.py": {"socket"},
    "cli/processes.py": {"socket"},
    "cli/sinks.py": {"aiosmtpd", "http.server", "socket", "ssl"},
    "cli/supervisor.py": {"subprocess"},
    "tasks/sd_notify.py": {"socket"},  # a datagram to systemd
    # only for the names of errors and of verification
    "listener/unreachable.py": {"socket", "ssl"},
    "tasks/engines.py": {"ssl"},
    # only to know this machine's name
    "listener/health.py": {"socket"},
    "store/heartbeats.py": {"socket"},
    "tasks/heart.py": {"socket"},
}

GUARDED = {"channels/webhook.py", "channels/slack.py", "channels/apprise.py", "tasks/fetch.py"}
"""Every place that makes a guarded client; a URL that somebody typed has no other way."""

READS_URLS = {"URL", "InvalidURL"}


def _files() -> Iterator[tuple[str, ast.Module]]:
    for room in (*ROOMS, "schemas"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ways(tree: ast.Module) -> set[str]:
    return {
        way for name in _imported(tree) for way in WAYS if name == way or name.startswith(f"{way}.")
    }


def test_only_the_files_on_the_list_can_open_a_connection() -> None:
    assert {name: ways for name, tree in _files() if (ways := _ways(tree))} == TAKEN


@pytest.mark.parametrize(
    "line", ["import requests", "from urllib import request", "import http.client as h"]
)
def test_a_new_way_out_would_be_seen(line: str) -> None:
    assert _ways(ast.parse(line))


def test_outside_the_guard_httpx_only_reads_urls() -> None:
    for name, tree in _files():
        if "httpx" not in _ways(tree) or name == "channels/guarded_http.py":
            continue
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "httpx"
        }
        assert used <= READS_URLS, name


def test_the_guarded_client_is_made_in_four_places() -> None:
    made = {
        name
        for name, tree in _files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("GuardedHttp")
    }

    assert made == GUARDED


@pytest.mark.parametrize("kind", [kind for kind in ChannelKind if kind is not ChannelKind.EMAIL])
def test_every_channel_with_a_url_holds_a_guarded_client(kind: ChannelKind) -> None:
    with closing(CHANNELS[kind](Settings(), lambda: datetime.now(UTC))) as channel:
        held = vars(channel)["_http"]

    assert isinstance(held, GuardedHttp)
