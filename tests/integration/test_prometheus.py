"""Real processes, asked by Prometheus's own tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.embedded import free_port
from docs.generate import DOCS

DEPLOY = DOCS.parent / "deploy"

pytestmark = pytest.mark.full


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """Run it; what it complains about fails the test."""
    if shutil.which("promtool") is None:
        pytest.fail("no promtool: install Debian's prometheus")
    said = subprocess.run(
        ["promtool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return str(answer.read().decode())


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[Any]:
    with log.open("wb") as target:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=target,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def eventually(ask: Callable[[], bool], timeout_s: float = 40.0) -> None:
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            if ask():
                return
        except OSError:
            pass  # nobody listens yet
        assert time.monotonic() < give_up, "not in time"
        time.sleep(0.2)


def test_a_real_service_is_scraped_and_promtool_has_nothing_to_say(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    listener_port, port = free_port(), free_port()
    service.environment["SCANHERALD_METRICS_PORT"] = str(listener_port)
    service.start()
    service.subscribe(mail=True)
    command = [sys.executable, "-m", "cli.main", "metrics", "--port", str(port)]
    with running(command, service.environment, tmp_path / "exporter.log") as exporter:
        eventually(lambda: "scanherald_up" in fetch(port, "/metrics"))
        service.publish(*({"data": scan} for scan in scans), {"data": b"{"})
        service.wait(lambda: service.settled(len(scans)))
        said = fetch(port, "/metrics")
        promtool("check", "metrics", given=said)
        own = fetch(listener_port, "/metrics")
        promtool("check", "metrics", given=own)
        assert 'scanherald_runs{state="done"}' in said
        assert re.search(r'^scanherald_render_seconds_count{format="pdf"} 11\.0$', said, re.M)
        assert re.search(r"^scanherald_dead_letters 1\.0$", said, re.M)
        for queue in ("default", "reports", "notifications"):
            assert f'scanherald_workers{{queue="{queue}"}} 1.0' in said
        assert 'recorded_entries_total{outcome="new"} 11.0' in own
        assert 'recorded_entries_total{outcome="dead"} 1.0' in own

        os.kill(service.supervisor.pid("valkey"), signal.SIGSTOP)  # hangs, does not refuse
        try:
            said = fetch(port, "/metrics")
        finally:
            os.kill(service.supervisor.pid("valkey"), signal.SIGCONT)
        promtool("check", "metrics", given=said)
        assert 'scanherald_up{part="redis"} 0.0' in said
        assert 'scanherald_up{part="broker"} 0.0' in said
        assert 'scanherald_up{part="ledger"} 1.0' in said
        eventually(lambda: 'scanherald_up{part="broker"} 1.0' in fetch(port, "/metrics"))
    assert exporter.returncode == 0


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    said = promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")
    assert "SUCCESS" in said


def test_the_configuration_we_ship_is_valid() -> None:
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_every_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "scanherald.json").read_text("utf-8"))
    expressions = [
        target["expr"].replace("$__rate_interval", "5m")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions)]
    path = tmp_path / "panels.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


def test_prometheus_itself_reads_the_exporter_and_evaluates_our_rules(
    service: Any, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        pytest.fail("no prometheus: install Debian's prometheus")
    service.start("nothing but the server")
    port, own = free_port(), free_port()
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    config = config.replace("9808", str(port)).replace("15s", "5s").replace("10s", "5s")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(config)
    exporter = [sys.executable, "-m", "cli.main", "metrics", "--port", str(port)]
    prometheus = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{own}",
    ]

    def query(text: str) -> list[Any]:
        found = json.loads(fetch(own, f"/api/v1/query?query={text}"))
        return list(found["data"]["result"])

    with (
        running(exporter, service.environment, tmp_path / "exporter.log"),
        running(prometheus, {}, tmp_path / "prometheus.log"),
    ):
        eventually(lambda: bool(query("scanherald_up")))
        assert {row["metric"]["part"]: row["value"][1] for row in query("scanherald_up")} == {
            "redis": "1",
            "broker": "1",
            "ledger": "1",
            "artifacts": "1",
        }
        pending = "ALERTS%7Balertname%3D%22ScanheraldNoWorker%22%7D"
        eventually(lambda: len(query(pending)) == 3, timeout_s=90)
