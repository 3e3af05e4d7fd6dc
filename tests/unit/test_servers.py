"""URLs of Redis, its sentinels and RabbitMQ, and what Celery and the clients make of them."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from schemas.errors import BrokerUnavailable, InvalidSettings
from schemas.servers import SentinelUrl, parse_sentinel, verified
from schemas.settings import Settings, load_settings
from tasks.engines import engine_settings
from tasks.publishing import broker_faults
from tasks.redis_server import open_client, told

NAMED = "redis+sentinel://u:p%40ss@a:1,b,[::1]:3/scans/2"


def settings(**given: Any) -> Settings:
    return load_settings(**given)


def test_a_sentinel_url_names_hosts_service_database_and_login() -> None:
    assert parse_sentinel(NAMED) == SentinelUrl(
        hosts=(("a", 1), ("b", 26379), ("::1", 3)),
        service="scans",
        db=2,
        username="u",
        password="p@ss",
    )


def test_options_of_tls_and_of_the_sentinels_own_login_are_told_apart() -> None:
    found = parse_sentinel(
        "rediss+sentinel://a:1/scans?ssl_ca_certs=/ca.pem&sentinel_password=x&sentinel_username=y"
    )
    assert found.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}
    assert found.own == {"password": "x", "username": "y"}
    assert (found.db, found.username, found.password) == (0, None, None)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://a:1,b:2", "SERVICE"),
        ("redis+sentinel:///scans", "SERVICE"),
        ("redis+sentinel://a/scans/two", "SERVICE"),
        ("redis+sentinel://a/scans?ssl_ca_certs=x", "rediss+sentinel://"),
        ("redis+sentinel://a/scans?quorum=2", "quorum"),
        ("sentinel://a:1", "redis+sentinel://"),
        ("http://a", "redis+sentinel://"),
    ],
)
def test_what_a_url_lacks_is_told_and_the_secret_is_not(url: str, says: str) -> None:
    url = url.replace("://", "://:hunter2@", 1)
    with pytest.raises(InvalidSettings) as refused:
        settings(redis_url=url)
    assert says in str(refused.value)
    assert "REDIS_URL" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("amqps://h//?ssl_ca_certs=/ca", "amqps://h//?ssl_ca_certs=/ca&ssl_cert_reqs=required"),
        ("redis://:p@h/0", "redis://:p@h/0"),
        ("amqp://h//", "amqp://h//"),
    ],
)
def test_a_certificate_is_verified_unless_the_url_says_otherwise(given: str, made: str) -> None:
    assert verified(given) == made


def test_celery_is_given_the_sentinels_one_by_one_with_the_primarys_login() -> None:
    found = engine_settings(settings(redis_url=NAMED))
    urls = "sentinel://u:p%40ss@a:1/2;sentinel://u:p%40ss@b:26379/2;sentinel://u:p%40ss@[::1]:3/2"
    assert found["broker_url"] == found["result_backend"] == urls
    for name in ("broker_transport_options", "result_backend_transport_options"):
        assert found[name]["master_name"] == "scans"
        assert found[name]["visibility_timeout"] == 600
    assert found["broker_use_ssl"] is found["redis_backend_use_ssl"] is None
    assert found["broker_transport_options"]["priority_steps"] == [0, 9]


def test_tls_behind_sentinels_reaches_both_them_and_the_primary() -> None:
    found = engine_settings(
        settings(redis_url="rediss+sentinel://a/scans?ssl_ca_certs=/ca&ssl_check_hostname=false")
    )
    options = {"ssl_ca_certs": "/ca", "ssl_check_hostname": False}
    assert found["broker_use_ssl"] == {**options, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert found["redis_backend_use_ssl"] == found["broker_use_ssl"]
    own = found["broker_transport_options"]["sentinel_kwargs"]
    assert {**own, **options, "ssl": True, "ssl_cert_reqs": "required"} == own


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("amqps://h//", {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}),
        (
            "amqps://h//?ssl_ca_certs=/ca&ssl_check_hostname=false",
            {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": "/ca"},
        ),
        ("amqps://h//?ssl_cert_reqs=none", {"cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_tls_to_rabbitmq_is_verified_by_authority_and_by_name(
    url: str, options: dict[str, Any]
) -> None:
    found = engine_settings(settings(celery_broker_url=url))
    assert (found["broker_url"], found["broker_use_ssl"]) == ("amqps://h//", options)


def test_celery_s_own_look_at_the_environment_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(engine_settings(settings(redis_url="rediss://h/0?ssl_ca_certs=/ca")))
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss://h/0")
    with app.connection_for_write() as writing, app.connection_for_read() as reading:
        for connection in (writing, reading):
            assert connection.ssl["ssl_cert_reqs"] == ssl.CERT_REQUIRED
            assert connection.ssl["ssl_ca_certs"] == "/ca"


def test_publishes_to_rabbitmq_are_confirmed_and_bounded() -> None:
    found = engine_settings(settings(celery_broker_url="amqp://h//"))
    assert found["broker_transport_options"] == {
        "confirm_publish": True,
        "read_timeout": 5,
        "write_timeout": 5,
    }
    assert found["broker_use_ssl"] is None
    assert found["result_backend"].startswith("redis://")


def test_a_client_behind_sentinels_asks_them_for_the_primary() -> None:
    client = open_client(NAMED, timeout_s=0.5, connect_s=0.1)
    pool = client.connection_pool
    assert (pool.service_name, pool.is_master) == ("scans", True)
    assert pool.connection_kwargs["db"] == 2
    client.close()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("NOPERM this user has no permissions to run the 'xack' command", "docs/brokers.md"),
        ("WRONGPASS invalid username-password pair", "user or password in the URL"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", "?ssl_ca_certs="),
        ("No master found for 'scans'", "SENTINEL masters"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "rediss://"),
        ("READONLY You can't write against a read only replica.", "is a replica"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("(403) ACCESS_REFUSED - Login was refused", "CELERY_BROKER_URL"),
        ("(406) PRECONDITION_FAILED - inequivalent arg 'x-max-priority'", "docs/brokers.md"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(said: str, advice: str) -> None:
    with pytest.raises(BrokerUnavailable) as refused, broker_faults():
        raise OSError(f"{said}\nand more")
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_broker_that_does_not_answer_is_told_as_such() -> None:
    with pytest.raises(BrokerUnavailable, match="no answer within 5 s"), broker_faults():
        raise OperationalError from TimeoutError()


def test_sentinels_that_do_not_answer_are_told_in_few_words() -> None:
    client = open_client("redis+sentinel://:hunter2@127.0.0.1:1/scans", timeout_s=0.5)
    with pytest.raises(RedisError) as away:
        client.ping()
    said = told(away.value)
    assert "No master found for 'scans' : a sentinel: network:ConnectionError; " in said
    assert "SENTINEL masters" in said
    assert len(said) < 400
    assert "hunter2" not in said


def test_an_unknown_error_is_told_as_it_is_or_with_what_the_caller_knows() -> None:
    assert told(OSError("gone")) == "OSError: gone"
    assert told(OSError("gone"), "see it") == "OSError: gone; see it"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://user:hunter2/et@h1:26379/svc",
        "redis+sentinel://user:hunter2#et@h1:26379/svc",
        "rediss+sentinel://h1/svc?ssl_cert_reqs=CERT_REQUIRED",
        "rediss://h1/0?ssl_cert_reqs=bogus",
        "amqp://h1//;amqps://h2//",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_quotes_no_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert "CELERY_BROKER_URL" in str(caught.value)
