"""Connections to PostgreSQL: bounded per process, and let go of when a host is cut off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import text

from store.ledger import Ledger
from tests.postgresql import Cluster

pytestmark = pytest.mark.full  # needs PostgreSQL


def test_a_process_holds_no_more_connections_than_it_may_and_its_threads_wait(
    cluster: Cluster,
) -> None:
    ledger = Ledger(cluster.url("migrated"), connections=2)
    together = Barrier(8)

    def look() -> int:
        together.wait(30)
        with ledger.read() as connection:
            connection.execute(text("SELECT pg_sleep(0.05)"))
            return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with ThreadPoolExecutor(8) as pool:
        used = [future.result() for future in [pool.submit(look) for _ in range(8)]]
    ledger.close()

    assert len(used) == 8
    assert len(set(used)) <= 2


def test_a_transaction_that_says_nothing_for_a_minute_is_ended_by_the_server(
    cluster: Cluster,
) -> None:
    ledger = Ledger(cluster.url("migrated"))
    with ledger.write() as connection:
        said = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    ledger.close()
    assert said == "1min"
