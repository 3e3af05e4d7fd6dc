"""How commands show an address: enough to recognise it by, never enough to use it."""

from __future__ import annotations

from urllib.parse import urlsplit

from schemas.notifications import ChannelAddress, ChannelKind


def shortened(address: ChannelAddress) -> str:
    """Enough of an address to recognise it by."""
    if not address.target:
        return "(no key opens it)"
    if address.kind is ChannelKind.EMAIL:
        name, _, host = address.target.rpartition("@")
        return f"{name[:2]}…@{host}"
    if address.kind is ChannelKind.APPRISE:
        return f"{address.target.partition('://')[0][:20]}://…"  # its host may be the token
    try:
        url = urlsplit(address.target)
        return f"{url.scheme}://{url.hostname}/…"
    except ValueError:
        return "…"
