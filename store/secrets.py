"""Subscribers' addresses and secrets, encrypted at rest.

Fernet with several keys: the newest encrypts, all decrypt, so a key is rotated
by putting a new one in front.  Without keys in the settings one is made in the
data folder, readable by its owner only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from schemas.errors import InvalidSettings
from store.key_files import read_key_file, read_or_make_key_file

KEY_FILE = "encryption.key"
SETTING = "SCANHERALD_ENCRYPTION_KEYS"

FITS_NONE = (
    "a stored secret fits none of the encryption keys; add the key it was written with to "
    "SCANHERALD_ENCRYPTION_KEYS, or, if it is lost, add the subscriber again; see docs/keys.md"
)


class SecretBox:
    """Encrypts and decrypts small secrets."""

    def __init__(self, keys: Sequence[str], origin: str = SETTING) -> None:
        try:
            known = [Fernet(key) for key in keys]
            self._fernet, self._newest = MultiFernet(known), known[0]
            self._digest_key = hashlib.sha256(b"digest of a secret\0" + keys[0].encode()).digest()
        except ValueError as error:
            raise InvalidSettings(
                f"{origin}: each key must be 32 bytes in url-safe base64, "
                "as `python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'` prints"
            ) from error

    def seal(self, plain: bytes) -> bytes:
        """Encrypt."""
        return self._fernet.encrypt(plain)

    def digest(self, *parts: str) -> str:
        """Tells secrets apart, in 32 letters that nobody without the newest key can guess from.

        Another key makes others.
        """
        plain = b"".join(b"%d:%b" % (len(raw), raw) for raw in map(_bytes, parts))
        return hmac.digest(self._digest_key, plain, "sha256").hex()[:32]

    def reseal(self, sealed: bytes) -> bytes | None:
        """The same under the newest key, or None if it is.  Raises InvalidSettings as ``open``."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None

    def opens(self, sealed: bytes) -> bool:
        """Whether any key fits."""
        try:
            self._fernet.decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def open(self, sealed: bytes) -> bytes:
        """Decrypt.  Raises InvalidSettings if no key fits."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise InvalidSettings(FITS_NONE) from error


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def known_keys(given: Sequence[SecretStr], data_dir: Path) -> tuple[list[str], str]:
    """The keys of the settings, else of the key file if there is one, and where they are from.

    Makes nothing.  Raises InvalidSettings for a file that cannot be read.
    """
    if given:
        return [key.get_secret_value() for key in given], SETTING
    path = data_dir / KEY_FILE
    text = read_key_file(path)
    return [] if text is None else [text], f"the key file {path}"


def open_secret_box(keys: Sequence[str], data_dir: Path) -> SecretBox:
    """The box of the settings' keys, or of the key file in ``data_dir``, made if absent."""
    if keys:
        return SecretBox(keys)
    path = data_dir / KEY_FILE
    key = read_or_make_key_file(path, Fernet.generate_key)
    return SecretBox([key], origin=f"the key file {path}")
