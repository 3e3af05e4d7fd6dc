"""A run in one task: what its two steps share, and what either owes when it breaks."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import pytest

from schemas.errors import ArtifactsUnavailable, LedgerUnavailable
from schemas.reports import Format
from schemas.runs import RunTicket
from tasks import finish, reports
from tasks.one_task import render_and_finish

ALL = ["pdf", "html", "json", "csv"]


class Killed(BaseException):
    """As a kill, nothing in the task can catch it."""


def take(run: RunTicket, *, redelivered: bool = False) -> None:
    """The task as the worker runs it."""
    render_and_finish.push_request(delivery_info={"redelivered": redelivered})
    try:
        render_and_finish.run(run.run_id, 1, ALL)
    finally:
        render_and_finish.pop_request()


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Counter[Format]:
    """How often each format has been rendered."""
    counted: Counter[Format] = Counter()
    real = reports.render

    def render(report: Any, name: Format, *arguments: Any) -> bytes:
        counted[name] += 1
        return real(report, name, *arguments)

    monkeypatch.setattr(reports, "render", render)
    return counted


def test_a_run_is_judged_once_rendered_settled_and_told(
    parts: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    judged: list[object] = []
    real = reports.assess

    def assess(*arguments: Any, **options: Any) -> Any:
        judged.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(reports, "assess", assess)
    subscribe(parts, events=("scan.completed",))
    render_and_finish.apply((record(parts, make_scan()).run_id, 1, ALL)).get()
    assert len(judged) == 1
    assert {row["status"] for row in rows(parts, "reports")} == {"ready"}
    assert rows(parts, "runs")[0]["state"] == "done"
    assert rows(parts, "events")[0]["reason"] == "4 artifacts, 0 failed, 2 notifications"
    (delivery,) = rows(parts, "deliveries")
    assert published == [(delivery["delivery_id"], 1, 0.0)]


def test_a_fault_of_the_second_step_repeats_that_alone(
    parts: Any, record: Any, make_scan: Any, rows: Any, rendered: Counter[Format],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real, faults = finish.settle, [LedgerUnavailable("ledger: database is locked")]

    def settle(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*arguments)

    monkeypatch.setattr(finish, "settle", settle)
    render_and_finish.apply((record(parts, make_scan()).run_id, 1, ALL)).get()
    assert not faults
    assert set(rendered.values()) == {1}
    assert rows(parts, "runs")[0]["state"] == "done"


def test_a_store_that_stays_away_leaves_the_run_to_the_sweep(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any) -> None:
        raise ArtifactsUnavailable("no space")

    monkeypatch.setattr(parts.artifacts, "place", put)
    render_and_finish.apply((record(parts, make_scan()).run_id, 1, ALL)).get()
    (run,) = rows(parts, "runs")
    assert run["state"] == "recorded"
    assert "no space" in run["last_error"]
    assert run["deadline"] > parts.clock()


def test_what_kills_its_worker_at_the_end_is_given_up_and_nothing_is_rendered_again(
    parts: Any, record: Any, make_scan: Any, rows: Any, rendered: Counter[Format],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def kill(*_: Any) -> None:
        raise Killed

    run = record(parts, make_scan())
    monkeypatch.setattr(finish, "settle", kill)
    with pytest.raises(Killed):
        take(run)
    for number in range(1, parts.settings.render_max_tries + 1):
        with pytest.raises(Killed):
            take(run, redelivered=True)
        assert rows(parts, "runs")[0]["settling"] == number
    take(run, redelivered=True)
    (ended,) = rows(parts, "runs")
    assert ended["state"] == "dead"
    assert "poison" in ended["last_error"]
    assert set(rendered.values()) == {1}


def test_a_fault_of_the_second_step_when_the_first_has_used_up_all_tries_is_told_as_it_is(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, faults = parts.artifacts.place, [True] * parts.settings.task_max_retries

    def busy(key: str, data: bytes) -> None:
        if faults:
            faults.pop()
            raise ArtifactsUnavailable("no route")
        place(key, data)

    def settle(*_: Any) -> None:
        raise LedgerUnavailable("ledger: database is locked")

    monkeypatch.setattr(parts.artifacts, "place", busy)
    monkeypatch.setattr(finish, "settle", settle)
    render_and_finish.apply((record(parts, make_scan()).run_id, 1, ALL)).get()
    (run,) = rows(parts, "runs")
    assert (run["state"], run["last_error"]) == ("recorded", "ledger: database is locked")


def test_artifacts_whose_folder_is_taken_away_are_not_called_ready(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, taken = parts.artifacts.settle, []

    def take_away(keys: Any) -> None:
        if not taken:
            taken.append(shutil.rmtree(parts.artifacts.folder))
        settle(keys)

    monkeypatch.setattr(parts.artifacts, "settle", take_away)
    render_and_finish.apply((record(parts, make_scan()).run_id, 1, ALL)).get()
    assert rows(parts, "runs")[0]["state"] == "done"
    assert all(parts.artifacts.is_there(row["artifact_key"]) for row in rows(parts, "reports"))
