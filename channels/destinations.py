"""Which destinations a URL that a person typed may lead to.

The guarded transport asks twice: about the URL before anything is opened, and
about every address its name resolves to.  The second answer is on the resolved
address, so no spelling of a host (octal, hexadecimal, short, mapped,
internationalised) can talk its way past it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import httpx

from schemas.errors import DestinationForbidden, InvalidSettings

Allowed = frozenset[tuple[str, int | None]]
"""Exempt destinations: a host with a port, or with None for every port."""

_HOST = re.compile(r"[a-z0-9_.:-]+")
_ALLOW_ENTRY = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/@\s]+))(?::(?P<port>\d+))?")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def parse_allow(entries: Iterable[str]) -> Allowed:
    """Read ``host`` and ``host:port`` entries; IPv6 addresses stand in brackets.

    Raises InvalidSettings that names the entry.
    """
    allowed: set[tuple[str, int | None]] = set()
    for entry in entries:
        match = _ALLOW_ENTRY.fullmatch(entry.strip().lower())
        if match is None:
            raise InvalidSettings(f"SCANHERALD_HTTP_ALLOW: {entry!r} is not host or host:port")
        host = match["v6"] or match["name"].rstrip(".")
        allowed.add((host, int(match["port"]) if match["port"] else None))
    return frozenset(allowed)


def is_exempt(allowed: Allowed, host: str, port: int) -> bool:
    """True when an operator has exempted this destination."""
    return (host, None) in allowed or (host, port) in allowed


def checked_url(url: str, allowed: Allowed) -> httpx.URL:
    """Parse ``url`` and refuse what no address check is needed for.

    Opens nothing.  Raises DestinationForbidden for all but https (http too where
    exempt), credentials, and malformed hosts and ports.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").removesuffix(".")
        parsed = parsed.copy_with(host=host, fragment=None)
    except (httpx.InvalidURL, ValueError):
        # Not chained: the parser quotes what it could not read, which may be a token.
        raise DestinationForbidden("the destination is not a valid URL") from None
    if not _HOST.fullmatch(host):
        raise DestinationForbidden("the destination's host is not a valid host name")
    port = parsed.port if parsed.port is not None else _DEFAULT_PORTS.get(parsed.scheme, 0)
    if parsed.userinfo:
        raise DestinationForbidden(f"the URL of {host} holds credentials; use a signing secret")
    if parsed.scheme != "https" and not (
        parsed.scheme == "http" and is_exempt(allowed, host, port)
    ):
        raise DestinationForbidden(
            f"{host} must be reached by https; an operator may exempt it with SCANHERALD_HTTP_ALLOW"
        )
    if not 0 < port < 65536:
        raise DestinationForbidden(f"the URL of {host} has an impossible port")
    return parsed


_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata service too
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent, on a public address
        "169.254.0.0/16",  # link-local, with the metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Only 2000::/3 is given out as global unicast.  Everything else (loopback, unique
# local, link-local, site-local, multicast, IPv4-compatible, NAT64) lies outside.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """True when ``address`` is a public unicast address; False for what is no address at all."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed in _GLOBAL_V6 and not any(parsed in network for network in _REFUSED_V6)
        parsed = parsed.ipv4_mapped
    return not any(parsed in network for network in _REFUSED_V4)
