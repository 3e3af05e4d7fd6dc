"""Bad input gets a clear answer, and the listener goes on."""

from __future__ import annotations

import json
import uuid
from typing import Any

from cli.sinks import SinkAnswer


def test_each_bad_entry_ends_with_a_reason_and_the_next_good_one_is_reported(
    service: Any, scans: list[bytes]
) -> None:
    service.environment |= {
        "SCANHERALD_DATAREF_TIMEOUT_S": "0.3",
        "SCANHERALD_TASK_MAX_RETRIES": "1",
        "SCANHERALD_RETRY_MAX_S": "0.2",
        "SCANHERALD_RUN_MAX_ATTEMPTS": "1",
    }
    service.sink.script(*[SinkAnswer(status=200, body=b"{}", delay_s=5.0)] * 4)
    many = {
        "scan_id": str(uuid.uuid4()),
        "domain": "many.example",
        "page_count": 3,
        "cookies": [{"name": f"c{number}"} for number in range(60_000)],
    }
    bad: list[tuple[dict[str, Any], str]] = [
        ({"data": b"{not json"}, "not JSON"),
        ({"data": b'{"scan_id":"x","domain":"a.example"}'}, "Invalid UUID"),
        ({"data": b'{"domain":"a.example"}'}, "missing required field `scan_id`"),
        (
            {"data": f'{{"scan_id":"{uuid.uuid4()}","domain":"a.example","cookies":7}}'.encode()},
            "$.cookies",
        ),
        ({"data": b"[" + b"x" * 100_000_000}, "SCANHERALD_MAX_ENTRY_BYTES"),
        ({"type": "scan.exploded", "data": b"{}"}, "is not one of"),
        ({"note": b"neither"}, "neither `data` nor `dataref`"),
        ({"data": b'{"params":' + b'{"a":' * 10_000}, "nested too deeply"),
        ({"data": b'{"scan_id":"\xff\xfe"}'}, "UTF-8"),
        ({"dataref": f"{service.sink.url}/slow"}, "in 2 tries"),
        ({"dataref": "file:///etc/passwd"}, "SCANHERALD_DATAREF_FILE_ROOTS"),
        ({"dataref": "https://169.254.169.254/latest"}, "private or reserved address"),
    ]
    service.start()
    service.publish(*(fields for fields, _ in bad), {"data": json.dumps(many).encode()})
    service.publish({"data": scans[0]})
    dead = len(bad)
    service.wait(lambda: len(service.dead_letters()) == dead and service.settled(5))

    said = service.scanherald("dead-letters", "--json")
    assert said.returncode == 0, said.stderr
    letters = json.loads(said.stdout)
    assert len(letters) == dead
    reasons = [letter["reason"] for letter in letters]
    for _, expected in bad:
        assert any(expected in reason for reason in reasons), (expected, reasons)
    assert all(letter["stream"] == "scans:events" and letter["entry_id"] for letter in letters)
    done = {run["subject"]: run for run in service.runs() if run["state"] == "done"}
    assert done["many.example"]["cookie_count"] == 60_000
    assert len(done) == 2
    client = service.redis()
    assert client.xpending("scans:events", "scanherald")["pending"] == 0
    client.close()
