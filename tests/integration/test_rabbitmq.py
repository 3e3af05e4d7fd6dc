"""The road with RabbitMQ as Celery's broker, and Redis for the stream and the results."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.full


def test_road(service: Any, rabbitmq: Any, scans: list[bytes]) -> None:
    service.start()
    service.subscribe(mail=True)
    service.publish(*({"data": data} for data in scans))
    service.wait(lambda: service.settled(len(scans)))
    for c in (["health"], ["top", "--once"], ["metrics"], ["tasks", "active"], ["audit"]):
        said = service.scanherald(*c)
        print(c, said.returncode, said.stdout[-3000:], said.stderr[-2000:])
    print(service.last_words())
    pytest.fail("look")
