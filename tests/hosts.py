"""Hosts on one machine: network namespaces on one bridge, each with its own address and link."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace.  ``enter`` goes in front of a command that is to run there."""

    name: str
    address: str
    port: str
    """The bridge's end of its cable, in the namespace of the network."""
    network: str

    @property
    def enter(self) -> list[str]:
        """Runs the rest of a command on this host."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Nothing comes in or goes out; nobody is told."""
        _ip("-n", self.network, "link", "set", self.port, "down")

    def plug_in(self) -> None:
        """The cable is back."""
        _ip("-n", self.network, "link", "set", self.port, "up")


def why_not() -> str | None:
    """Why this machine cannot make hosts, or None."""
    if os.geteuid() != 0:
        return "hosts need the right to make network namespaces (root)"
    trial = f"sh-trial-{os.getpid()}"
    try:
        _ip("netns", "add", trial)
        _ip("netns", "delete", trial)
    except FileNotFoundError:
        return "hosts need iproute2's ip"
    except subprocess.CalledProcessError as error:
        return f"hosts need network namespaces: {error.stderr.strip()}"
    return None


@contextmanager
def make_hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Hosts by name on a network that only they are on, as long as the context lasts.

    The bridge lies in a namespace of its own, so that nothing of it meets the
    machine's own network.
    """
    mark = os.getpid()
    network = f"sh{mark}-net"
    with ExitStack() as undo:
        _add_namespace(network, undo)
        _ip("-n", network, "link", "add", "br0", "type", "bridge")
        _ip("-n", network, "link", "set", "br0", "up")
        hosts = {}
        for number, name in enumerate(names, 1):
            host = Host(f"sh{mark}-{name}", f"10.77.0.{number}", f"to{number}", network)
            _add_namespace(host.name, undo)
            _ip(
                *("-n", network, "link", "add", host.port, "type", "veth"),
                *("peer", "name", "eth0", "netns", host.name),
            )
            _ip("-n", network, "link", "set", host.port, "master", "br0", "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", link, "up")
            hosts[name] = host
        yield hosts


def _add_namespace(name: str, undo: ExitStack) -> None:
    _ip("netns", "add", name)
    undo.callback(_ip, "netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)
