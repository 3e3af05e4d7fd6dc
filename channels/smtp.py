"""E-mail: hands a composed message to the configured mail server.

Connections are kept between messages.  A thread takes an idle one or opens its
own and puts it back when the message is through, so no two threads ever share
one and a slow server holds up only the thread that waits for it.
"""

from __future__ import annotations

import smtplib
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from channels.mail_message import Envelope, compose
from channels.operator_templates import load_templates
from channels.protocol import Clock
from channels.readable import one_line, receipt_text
from schemas.errors import ChannelUnavailable, DeliveryRejected
from schemas.notifications import Message, Receipt
from schemas.settings import Settings

Reply = tuple[int, bytes]

NOT_LOGGED_IN = (530, 535)
"""The server wants TLS or a login first."""
POLICY = b"5.7."
"""Enhanced codes (RFC 3463) of what a server's policy forbids, such as to relay."""


class SmtpChannel:
    """Sends through one mail server.  ``ssl_context`` replaces the machine's trusted roots."""

    def __init__(
        self, settings: Settings, clock: Clock, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ssl_context = ssl_context
        self._templates = load_templates(settings.templates_dir)
        self._idle: deque[smtplib.SMTP] = deque()

    def send(self, message: Message) -> Receipt:
        """Hand over once.  See ``Channel.send``; a mailbox tells repeats by ``Message-ID``."""
        if not self._settings.smtp_host:
            raise ChannelUnavailable("e-mail is off: set SCANHERALD_SMTP_HOST to a mail server")
        key = self._settings.unsubscribe_key
        envelope = compose(
            message,
            mail_from=self._settings.mail_from,
            unsubscribe_url=self._settings.list_unsubscribe_url,
            unsubscribe_key=key.get_secret_value() if key else None,
            now=self._clock(),
            templates=self._templates,
        )
        with self._translated():
            connection = self._idle_connection() or self._open()
            try:
                receipt = _hand_over(connection, envelope, message.address.target)
            except BaseException:
                # In whatever state it is now, the next message must not inherit it.
                connection.close()
                raise
        self._idle.append(connection)
        return receipt

    def greet(self) -> None:
        """Connect, secure and log in as for a message, and keep the connection.

        Raises ChannelUnavailable.
        """
        with self._translated():
            self._idle.append(self._open())

    def close(self) -> None:
        """Close the idle connections.  Safe to repeat."""
        while (connection := self._pop()) is not None:
            with suppress(smtplib.SMTPException, OSError):  # a goodbye that fails loses nothing
                connection.quit()
            connection.close()

    def _pop(self) -> smtplib.SMTP | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _idle_connection(self) -> smtplib.SMTP | None:
        """An idle connection that just answered, or None.

        Servers drop idle connections.  A stale one is found out here, by NOOP,
        before a word of the message is said, and replaced.  From MAIL on nothing
        is tried again in this call: once DATA has begun, a lost connection leaves
        open whether the server took the message, and a resend would double it.
        That window remains; the delivery's next attempt carries the same Message-ID.
        """
        while (connection := self._pop()) is not None:
            with suppress(
                smtplib.SMTPException, OSError
            ):  # stale: the visible outcome is a new one
                if connection.noop()[0] == 250:
                    return connection
            connection.close()
        return None

    def _open(self) -> smtplib.SMTP:
        settings = self._settings
        host, port, timeout = settings.smtp_host or "", settings.smtp_port, settings.smtp_timeout_s
        if settings.smtp_security == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, timeout=timeout, context=self._tls()
            )
        else:
            connection = smtplib.SMTP(host, port, timeout=timeout)
        try:
            if settings.smtp_security == "starttls":
                connection.starttls(context=self._tls())
            connection.ehlo_or_helo_if_needed()
            if settings.smtp_username and settings.smtp_password:
                _log_in(
                    connection,
                    settings.smtp_username,
                    settings.smtp_password.get_secret_value(),
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            # Verifies the certificate and the name; made late, as it reads the trusted roots.
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn smtplib's and the system's exceptions into ours.

        What fails before MAIL (the greeting, STARTTLS, the login) is a fault of
        the server or of our settings, not of this message: it passes once an
        operator has acted, so the delivery waits instead of failing for good.
        """
        try:
            yield
        except smtplib.SMTPNotSupportedError as error:
            raise ChannelUnavailable(
                f"the mail server cannot do what the settings ask: {one_line(str(error), 200)} "
                f"(SCANHERALD_SMTP_SECURITY is {self._settings.smtp_security})"
            ) from error
        except smtplib.SMTPResponseException as error:
            raise ChannelUnavailable(
                f"the mail server refused the connection with {error.smtp_code}",
                status_code=error.smtp_code,
                receipt=receipt_text(error.smtp_error),
            ) from error
        except UnicodeError as error:
            raise ChannelUnavailable("SCANHERALD_SMTP_HOST is not a host name") from error
        except (smtplib.SMTPException, OSError) as error:
            raise ChannelUnavailable(
                f"the mail server could not be reached: {one_line(str(error), 200) or 'no answer'}"
            ) from error


def _log_in(connection: smtplib.SMTP, username: str, password: str) -> None:
    try:
        connection.login(username, password)
    except (smtplib.SMTPAuthenticationError, UnicodeError) as error:
        # Not chained: a server may repeat the name, an encoder quotes the password.
        code = error.smtp_code if isinstance(error, smtplib.SMTPAuthenticationError) else None
        raise ChannelUnavailable(
            "the mail server refused the login; check SCANHERALD_SMTP_USERNAME and "
            "SCANHERALD_SMTP_PASSWORD",
            status_code=code,
        ) from None


def _hand_over(connection: smtplib.SMTP, envelope: Envelope, target: str) -> Receipt:
    """One mail transaction.  What the server says loses the address it likes to repeat."""
    hidden = (target, envelope.recipient)
    options = []
    if envelope.international:
        if not connection.has_extn("smtputf8"):
            raise DeliveryRejected("the mail server takes no addresses beyond ASCII (SMTPUTF8)")
        options = ["SMTPUTF8"]
    reply = connection.mail(envelope.sender, options)
    _accepted(reply, "the sender", hidden, is_ours=True)
    reply = connection.rcpt(envelope.recipient)
    _accepted(reply, "the recipient", hidden, is_ours=_refuses_us(reply), of_mailbox=True)
    try:
        reply = connection.data(envelope.content)
    except smtplib.SMTPDataError as error:
        reply = (error.smtp_code, _bytes(error.smtp_error))
    return _accepted(reply, "the message", hidden, is_ours=reply[0] in NOT_LOGGED_IN)


def _refuses_us(reply: Reply) -> bool:
    """Whether a refused recipient is not the reason: we may not send there, or not so."""
    code, said = reply
    words = said.lower()
    return code in NOT_LOGGED_IN or words.startswith(POLICY) or b"relay" in words


def _accepted(
    reply: Reply,
    what: str,
    hidden: tuple[str, ...],
    *,
    is_ours: bool = False,
    of_mailbox: bool = False,
) -> Receipt:
    """The receipt of a step that was accepted.

    ``is_ours``: a refusal is a fault of our settings, or of the operator's mail server.
    It would meet every message and passes once an operator has acted, so the delivery waits.
    """
    code, said = reply
    receipt = receipt_text(said, hidden)
    if 200 <= code < 300:
        return Receipt(status_code=code, text=receipt)
    text = f"the mail server refused {what} with {code}"
    if 500 <= code < 600 and not is_ours:
        raise DeliveryRejected(text, status_code=code, receipt=receipt, of_mailbox=of_mailbox)
    raise ChannelUnavailable(text, status_code=code, receipt=receipt)


def _bytes(said: bytes | str) -> bytes:
    return said.encode("utf-8", "replace") if isinstance(said, str) else said
