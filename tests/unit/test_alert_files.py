"""What we ship for Prometheus and Grafana speaks of metrics that exist, and is tested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.metrics import EXPORTED, LISTENER, MetricKind

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
RULE_TESTS = (ROOT / "deploy" / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "scanherald.json").read_text("utf-8"))
ALERTS = re.findall(r"- alert: (\w+)", RULES)

KNOWN = {
    metric.name + part
    for metric in (*EXPORTED, *LISTENER)
    for part in (("_bucket", "_count", "_sum") if metric.kind is MetricKind.HISTOGRAM else ("",))
}


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("text", [RULES, *expressions()], ids=["alerts.yml", *expressions()])
def test_every_metric_that_is_named_exists(text: str) -> None:
    named = set(re.findall(r"\bscanherald_\w+", text))
    assert named <= KNOWN, named - KNOWN


def test_each_alert_is_seen_silent_and_firing() -> None:
    assert len(ALERTS) == len(set(ALERTS)) >= 15
    for alert in ALERTS:
        checks = re.findall(
            rf"""alertname="{alert}", alertstate="firing"}}'\n"""
            r" *eval_time: \w+\n *exp_samples:( \[\])?",
            RULE_TESTS,
        )
        assert " []" in checks, f"{alert} is never seen silent"
        assert "" in checks, f"{alert} is never seen firing"


def test_each_alert_says_whom_it_wakes_what_it_means_and_what_to_do() -> None:
    for rule in RULES.split("- alert: ")[1:]:
        assert re.search(r"labels: \{severity: (page|ticket)\}", rule), rule
        assert "summary: " in rule
        assert "do: " in rule


def test_the_dashboard_fits_and_explains_itself() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(panel["description"] and panel["targets"] for panel in panels())


def test_every_metric_but_the_release_is_on_the_dashboard_or_alerted_on() -> None:
    shown = " ".join([RULES, *expressions()])
    unused = {metric.name for metric in (*EXPORTED, *LISTENER) if not re.search(metric.name, shown)}
    assert unused == {
        "scanherald_stream_entries",
        "scanherald_stream_consumers",
        "scanherald_disabled_addresses",
        "scanherald_listener_read_entries_total",
    }
