"""The Ed25519 keys of evidence bundles: the private one that signs, the public one that checks.

The private key comes from the settings, else from a key file in the data
folder.  A public key travels as one line of base64, which is the middle line
of its PEM file, and people compare it by its fingerprint.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import InvalidSettings
from store.key_files import read_or_make_key_file

KEY_FILE = "signing.key"

RAW_BYTES = 32
"""An Ed25519 key, private or public, without any wrapping."""


class PublicKey:
    """Checks signatures.  Two are equal if they are the same key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._der = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._der == other._der

    def __hash__(self) -> int:
        return hash(self._der)

    @property
    def text(self) -> str:
        """Base64 of its SubjectPublicKeyInfo, on one line."""
        return base64.b64encode(self._der).decode("ascii")

    @property
    def pem(self) -> str:
        """What goes into a ``.pem`` file."""
        return f"-----BEGIN PUBLIC KEY-----\n{self.text}\n-----END PUBLIC KEY-----\n"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of its SubjectPublicKeyInfo."""
        return hashlib.sha256(self._der).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed exactly these bytes."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """Signs.  Ed25519 draws no random number: the same message gives the same signature."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._key.sign(message)


def open_signing_key(setting: str | None, data_dir: Path) -> SigningKey:
    """The key of the settings, or of the key file in ``data_dir``, made if absent.

    Raises InvalidSettings, which names where the key came from and never shows it.
    """
    if setting:
        return SigningKey(_read_private(setting, "SCANHERALD_SIGNING_KEY"))
    path = data_dir / KEY_FILE
    text = read_or_make_key_file(path, _make_private)
    return SigningKey(_read_private(text, f"the key file {path}"))


def check_signing_key(text: str, origin: str) -> None:
    """Raises InvalidSettings, which names the origin, for a text that is no private key."""
    _read_private(text, origin)


def read_public_key(text: str) -> PublicKey:
    """A public key from its PEM, its base64 line, or base64 of its 32 bytes.

    Raises ValueError for anything else.
    """
    try:
        if "-----BEGIN" in text:
            key = serialization.load_pem_public_key(text.encode())
        else:
            data = base64.b64decode(text.strip(), validate=True)
            if len(data) == RAW_BYTES:
                return PublicKey(Ed25519PublicKey.from_public_bytes(data))
            key = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("no public key in PEM or base64") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return PublicKey(key)


def _read_private(text: str, origin: str) -> Ed25519PrivateKey:
    try:
        return _decode_private(text)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # the cause is left out, for it may quote the key
        raise InvalidSettings(
            f"{origin}: must be an Ed25519 private key without a password, as "
            "`openssl genpkey -algorithm ed25519` prints, or base64 of its 32 bytes"
        ) from None


def _decode_private(text: str) -> Ed25519PrivateKey:
    if "-----BEGIN" not in text:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.strip(), validate=True))
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key


def _make_private() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
