"""Signatures, judged by an independent verifier."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from channels.signing import MAX_KEY_BYTES, MIN_KEY_BYTES, new_secret, sign
from schemas.errors import DeliveryRejected

OLD, NEW = new_secret(lambda n: b"o" * n), new_secret(lambda n: b"n" * n)


def now() -> datetime:
    return datetime.now(UTC)  # the verifier refuses what is not fresh by its own clock


@given(body=st.binary(max_size=200).map(lambda raw: b'{"x":"' + raw.hex().encode() + b'"}'))
def test_an_independent_verifier_accepts_every_body(body: bytes) -> None:
    Webhook(NEW).verify(body, sign([NEW], "msg-1", now(), body))


@given(place=st.integers(min_value=0, max_value=10), other=st.integers(min_value=1, max_value=127))
def test_the_verifier_refuses_a_body_with_one_changed_byte(place: int, other: int) -> None:
    body = b'{"score":7}'
    headers = sign([NEW], "msg-1", now(), body)
    changed = body[:place] + bytes((body[place] ^ other,)) + body[place + 1 :]

    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(changed, headers)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_the_verifier_refuses_another_id_or_time(name: str) -> None:
    headers = sign([NEW], "msg-1", now(), b"{}")
    headers[name] = {"webhook-id": "msg-2", "webhook-timestamp": str(int(now().timestamp()) - 9)}[
        name
    ]

    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(b"{}", headers)


def test_during_rotation_either_secret_verifies_and_a_third_does_not() -> None:
    headers = sign([NEW, OLD], "msg-1", now(), b"{}")

    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(NEW).verify(b"{}", headers)
    Webhook(OLD).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret(secrets.token_bytes)).verify(b"{}", headers)


def test_signing_is_a_pure_function_of_its_arguments() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    headers = sign([NEW], "msg-1", moment, b"{}")

    assert headers == sign([NEW], "msg-1", moment, b"{}")
    assert headers["webhook-id"] == "msg-1"
    assert headers["webhook-timestamp"] == "1772600767"
    assert headers["webhook-signature"].startswith("v1,")


def test_a_new_secret_holds_256_random_bits() -> None:
    made = {new_secret(secrets.token_bytes) for _ in range(20)}

    assert len(made) == 20
    assert all(len(base64.b64decode(each.removeprefix("whsec_"))) == 32 for each in made)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hunter2-hunter2",
        "whsec_hunter2 hunter2",
        "whsec_hunter2-ü",
        NEW.removeprefix("whsec_"),
        "whsec_" + base64.b64encode(b"s" * (MIN_KEY_BYTES - 1)).decode(),
        "whsec_" + base64.b64encode(b"s" * (MAX_KEY_BYTES + 1)).decode(),
    ],
)
def test_an_unusable_secret_is_rejected_without_being_shown(secret: str) -> None:
    with pytest.raises(DeliveryRejected, match="whsec_") as caught:
        sign([secret], "msg-1", now(), b"{}")

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
