"""Tells systemd how a part is, where a unit of ``Type=notify`` listens.

The protocol is one datagram per word to a socket that systemd names in
``NOTIFY_SOCKET``; see sd_notify(3).
"""

from __future__ import annotations

import socket


def notify(address: str | None, *words: str) -> None:
    """Send words such as ``READY=1``; without an address nobody listens.

    Never waits.  Raises OSError where the socket is gone or full.
    """
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract sockets are written so
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendto("\n".join(words).encode(), address)
