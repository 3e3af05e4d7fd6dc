"""Links that open: an artifact in a bucket is linked by an address that is signed as it is sent.

The ledger keeps the bucket's URI.  Signed when the message was planned, a link would
have aged in quiet hours, in a digest or between tries, and lain in the ledger, where
whoever reads it could use it.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from schemas.notifications import Notification
from tasks.wiring import Wiring


def with_links(parts: Wiring, told: Notification) -> Notification:
    """The news with its links to artifacts of our bucket signed, if the settings want that.

    Where ``public_url`` is set, links lead there and stay.  Raises ArtifactsUnavailable
    without a key to sign with.
    """
    good_for = timedelta(seconds=parts.settings.link_expires_s)
    if not good_for or parts.artifacts.folder is not None:
        return told

    def signed(uri: str) -> str:
        return parts.artifacts.presigned(uri, good_for)

    return msgspec.structs.replace(
        told,
        artifacts=tuple(
            msgspec.structs.replace(artifact, uri=signed(artifact.uri))
            for artifact in told.artifacts
        ),
        lines=tuple(
            msgspec.structs.replace(line, link=signed(line.link)) if line.link else line
            for line in told.lines
        ),
    )
