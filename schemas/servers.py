"""The URLs of Redis, its sentinels and Celery's broker: what each may say.

One form for stream, broker and result backend alike:

    redis://[USER:PASSWORD@]HOST:PORT/DB
    rediss://…                                with TLS
    redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT,…/SERVICE/DB
    rediss+sentinel://…                       the primary that sentinels name; with TLS

Options of TLS follow as ``?ssl_ca_certs=/path/ca.pem``, for ``amqps://`` too.  A
server's certificate is verified unless its URL says ``ssl_cert_reqs=none``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
TLS_SCHEMES = ("rediss", "amqps")
TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
"""What the sentinels themselves ask for, which is not what the primary does."""

SENTINEL_PORT = 26379
VERIFICATIONS = ("none", "optional", "required")
VERIFIED = {"ssl_cert_reqs": "required"}


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The servers' primary, as sentinels name it."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] | None = None
    """Options by their names of ``TLS_OPTIONS``; None: no TLS."""
    own: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The sentinels' ``username`` and ``password``."""

    def chunks(self, scheme: str) -> str:
        """As Celery writes it: one URL per sentinel, each with the primary's credentials."""
        user = quote(self.username or "", safe="")
        secret = "" if self.password is None else f":{quote(self.password, safe='')}"
        login = f"{user}{secret}@" if user or secret else ""
        return ";".join(
            f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{port}/{self.db}"
            for host, port in self.hosts
        )


def is_sentinel(url: str) -> bool:
    """Whether sentinels are to be asked for the server."""
    return url.startswith(tuple(f"{scheme}://" for scheme in SENTINEL_SCHEMES))


def parse_sentinel(url: str) -> SentinelUrl:
    """Raises ValueError, which says what is wrong and quotes nothing that may be a secret."""
    form = "not HOST:PORT,HOST:PORT,…/SERVICE or …/SERVICE/DB after redis+sentinel://"
    parts = urlsplit(url)
    login, _, addresses = parts.netloc.rpartition("@")
    username, colon, password = login.partition(":")
    hosts = tuple(_host(address) for address in addresses.split(",") if address)
    service, _, db = parts.path.strip("/").partition("/")
    if not (hosts and service) or not (db or "0").isdigit():
        raise ValueError(form)
    options = dict(parse_qsl(parts.query))
    unknown = [name for name in options if name not in (*TLS_OPTIONS, *SENTINEL_OPTIONS)]
    if unknown:
        known = ", ".join((*TLS_OPTIONS, *SENTINEL_OPTIONS))
        raise ValueError(f"has the option {unknown[0]}; there are: {known}")
    tls = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    _check_verification(tls)
    if tls and parts.scheme == "redis+sentinel":
        raise ValueError("has options of TLS, which begins with rediss+sentinel://")
    return SentinelUrl(
        hosts=hosts,
        service=unquote(service),
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) if colon else None,
        tls={**VERIFIED, **tls} if parts.scheme == "rediss+sentinel" else None,
        own={
            name.removeprefix("sentinel_"): options[name]
            for name in SENTINEL_OPTIONS
            if name in options
        },
    )


def verified(url: str) -> str:
    """The same URL, saying that the server's certificate is verified unless it says otherwise.

    Left out, each library has a default of its own: kombu's verifies nothing.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in TLS_SCHEMES:
        return url
    if "ssl_cert_reqs" in options:
        _check_verification(options)
        return url
    return urlunsplit(parts._replace(query=urlencode({**options, **VERIFIED}, safe="/")))


def _check_verification(options: Mapping[str, str]) -> None:
    if options.get("ssl_cert_reqs", "required") not in VERIFICATIONS:
        raise ValueError(f"has an ssl_cert_reqs that is none of {', '.join(VERIFICATIONS)}")


def tls_options(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its options of TLS, and those options."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    rest = {name: value for name, value in given.items() if name not in TLS_OPTIONS}
    bare = urlunsplit(parts._replace(query=urlencode(rest, safe="/")))
    return bare, {name: value for name, value in given.items() if name in TLS_OPTIONS}


def _host(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port or SENTINEL_PORT
    except ValueError:  # it quotes the address, which may be the end of a password
        raise ValueError(
            "a sentinel's address is not HOST:PORT; percent-encode special characters in the "
            "password"
        ) from None
    if not host:
        raise ValueError("a sentinel has no host name")
    return host, port
