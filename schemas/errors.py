"""Every error of ours, by what the caller should do about it.

    ScanheraldError
    ├── PermanentError             trying again cannot help
    │   ├── InvalidEvent           an entry or its data breaks the contract
    │   │   ├── UnknownEventType   the type is not one of the contract's
    │   │   └── TooLarge           a size bound of the settings is exceeded
    │   ├── InvalidSettings        the environment or a file says something unusable
    │   ├── NotFound               no such scan, run, artifact or subscriber
    │   ├── InvalidBundle          an evidence bundle is not what its signer made
    │   ├── RenderFailed           a renderer could not turn this Report into bytes
    │   └── DeliveryRejected       the other side refused this message for good
    │       └── DestinationForbidden   we refuse to connect there (guarded transport)
    └── TransientError             the same call may succeed later
        ├── StreamUnavailable      Redis or its stream cannot be asked now
        ├── BrokerUnavailable      Celery cannot publish now
        ├── LedgerUnavailable      the database is locked, restarting or gone
        ├── ArtifactsUnavailable   the artifact store cannot be read or written now
        ├── DataUnavailable        a dataref did not answer
        └── ChannelUnavailable     a destination timed out or answered 5xx
            └── RateLimited        a destination told us when to come back

Whoever speaks to a foreigner translates its exceptions here, once, chained to
the cause.  Retry policy reads nothing but this tree; any other exception is a
bug and stays loud.
"""

from __future__ import annotations


class ScanheraldError(Exception):
    """Root of the tree.  The message is for a person: what, which value, what to do."""


class PermanentError(ScanheraldError):
    """Trying again cannot help."""


class TransientError(ScanheraldError):
    """The same call may succeed later.

    ``retry_after`` is the number of seconds the other side asked us to wait, or
    None when it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidEvent(PermanentError):
    """An entry or its data breaks the event contract."""


class UnknownEventType(InvalidEvent):
    """The event's type is not one of the contract's."""


class TooLarge(InvalidEvent):
    """A size bound of the settings is exceeded."""


class InvalidSettings(PermanentError):
    """The environment or a configuration file says something unusable."""


class NotFound(PermanentError):
    """No such scan, run, artifact or subscriber."""


class InvalidBundle(PermanentError):
    """An evidence bundle is not what its signer made."""


class RenderFailed(PermanentError):
    """A renderer could not turn this Report into bytes."""


class DeliveryRejected(PermanentError):
    """The other side refused this message for good.

    ``status_code`` is its answer (HTTP or SMTP) where there was one; ``receipt``
    is what it said, bounded.  ``of_mailbox``: a mail server refused the recipient
    itself, not its message or its sender.
    """

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        receipt: str = "",
        *,
        of_mailbox: bool = False,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.receipt = receipt
        self.of_mailbox = of_mailbox


class DestinationForbidden(DeliveryRejected):
    """The guarded transport refuses to connect to this destination."""


class StreamUnavailable(TransientError):
    """Redis or its stream cannot be asked now."""


class BrokerUnavailable(TransientError):
    """Celery cannot publish now."""


class LedgerUnavailable(TransientError):
    """The database is locked, restarting or gone."""


class ArtifactsUnavailable(TransientError):
    """The artifact store cannot be read or written now."""


class DataUnavailable(TransientError):
    """A dataref did not answer."""


class ChannelUnavailable(TransientError):
    """A destination timed out or answered with a passing failure."""

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        status_code: int | None = None,
        receipt: str = "",
    ) -> None:
        super().__init__(message, retry_after)
        self.status_code = status_code
        self.receipt = receipt


class RateLimited(ChannelUnavailable):
    """A destination told us to slow down."""
