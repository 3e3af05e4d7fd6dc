"""The keys of evidence bundles: from the settings, from a file, and as an auditor holds them."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidSettings
from store.signing_keys import PublicKey, SigningKey, open_signing_key, read_public_key

SEED = b"k" * 32
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(SEED))
MESSAGE = b"what was signed"


def pem_of(key: object, password: bytes = b"") -> str:
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    ).decode()


def test_what_was_signed_is_verified_and_nothing_else() -> None:
    signature = KEY.sign(MESSAGE)
    assert KEY.public.verifies(signature, MESSAGE)
    assert not KEY.public.verifies(signature, MESSAGE + b"!")
    assert not KEY.public.verifies(signature[:-1], MESSAGE)
    assert not KEY.public.verifies(b"", MESSAGE)
    assert KEY.sign(MESSAGE) == signature


@pytest.mark.parametrize(
    "setting",
    [
        base64.b64encode(SEED).decode(),
        f" {base64.b64encode(SEED).decode()}\n",
        pem_of(Ed25519PrivateKey.from_private_bytes(SEED)),
    ],
    ids=["base64", "base64 with white space", "pem"],
)
def test_a_key_of_the_settings_is_used_and_no_file_is_made(setting: str, tmp_path: Path) -> None:
    assert open_signing_key(setting, tmp_path / "data").public == KEY.public
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("setting", [None, ""])
def test_without_a_setting_a_key_file_is_made_once_for_its_owner_alone(
    setting: str | None, tmp_path: Path
) -> None:
    made = open_signing_key(setting, tmp_path / "data")
    assert open_signing_key(setting, tmp_path / "data").public == made.public
    (path,) = (tmp_path / "data").iterdir()
    assert path.name == "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_makers_in_processes_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from store.signing_keys import open_signing_key; "
        "print(flush=True); sys.stdin.read(); "
        "print(open_signing_key(None, Path(sys.argv[1])).public.fingerprint)"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "\n"  # imported and ready
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None
    said = {maker.communicate(timeout=60)[0].strip() for maker in makers}
    assert said == {open_signing_key(None, tmp_path).public.fingerprint}


@pytest.mark.parametrize(
    "setting",
    [
        "hunter2",
        "hunter2é",
        base64.b64encode(b"hunter2").decode(),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(x25519.X25519PrivateKey.generate()),
        pem_of(Ed25519PrivateKey.from_private_bytes(SEED), b"password"),
        KEY.public.pem,
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        "-----BEGIN \udcff",
    ],
)
def test_a_bad_key_is_explained_and_not_shown(setting: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="SCANHERALD_SIGNING_KEY: must be an Ed25519") as said:
        open_signing_key(setting, tmp_path)
    assert "hunter2" not in str(said.value)
    assert said.value.__cause__ is None


def test_a_broken_key_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(b"\xffhunter2")
    with pytest.raises(InvalidSettings) as caught:
        open_signing_key(None, tmp_path)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert path.read_bytes() == b"\xffhunter2"


@pytest.mark.parametrize(
    "text",
    [
        KEY.public.text,
        KEY.public.pem,
        f"signer of example.org\n{KEY.public.pem}",
        base64.b64encode(base64.b64decode(KEY.public.text)[-32:]).decode(),
    ],
    ids=["line", "pem", "pem with a note", "bare"],
)
def test_a_public_key_is_read_in_every_form_it_is_handed_on(text: str) -> None:
    assert read_public_key(text) == KEY.public
    assert read_public_key(f"{text}\n") == KEY.public


def test_the_fingerprint_is_the_digest_of_the_key_as_openssl_writes_it() -> None:
    assert KEY.public.fingerprint == hashlib.sha256(base64.b64decode(KEY.public.text)).hexdigest()
    assert len({KEY.public, read_public_key(KEY.public.pem)}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "signer.pem",
        KEY.public.text[:-4],
        pem_of(Ed25519PrivateKey.from_private_bytes(SEED)),
        base64.b64encode(
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        ).decode(),
    ],
)
def test_anything_else_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"no public key|not an Ed25519 key"):
        read_public_key(text)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda end: b"0*0\x05\x06\x03" + end))
def test_a_hostile_key_breaks_nothing(data: bytes) -> None:
    try:
        key = read_public_key(base64.b64encode(data).decode())
    except ValueError:
        return
    assert isinstance(key, PublicKey)
    assert not key.verifies(bytes(64), MESSAGE) or len(data) == 32
