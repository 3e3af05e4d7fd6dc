"""A sample of what subscribers are told: a scan that never was, of a domain that nobody owns."""

from __future__ import annotations

from datetime import datetime

from schemas.events import EventType
from schemas.notifications import Fact, FindingSummary, Notification
from schemas.reports import Severity

FINDING = "A finding as an example"


def sample(now: datetime) -> Notification:
    """A completed scan as it would be told, marked as a test."""
    return Notification(
        event_key=f"test:{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        type=EventType.SCAN_COMPLETED,
        occurred_at=now,
        domain="test.example",
        scan_id=None,
        severity=Severity.MEDIUM,
        title="Test message: scan of test.example finished: score 71",
        summary="No scan took place. Cookies: 12, of them before a choice: 3. Findings: 1.",
        variant="scan.completed.sample",
        values={
            "domain": "test.example",
            "score": 71,
            "cookies": 12,
            "before_consent": 3,
            "findings": 1,
        },
        facts=(
            Fact(label="score", value="71"),
            Fact(label="cookies", value="12"),
            Fact(label="before_consent", value="3"),
        ),
        findings=(
            FindingSummary(rule_id="test", severity=Severity.MEDIUM, title=FINDING, count=3),
        ),
        data={"test": True},
    )
