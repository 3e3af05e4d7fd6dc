"""What we ship to deploy with speaks of commands, variables and queues that exist."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml
from celery.signals import worker_ready
from kombu.transport.redis import Channel
from structlog.testing import capture_logs
from typer.main import get_command

from cli.lazy import Stub
from cli.main import app as command_line
from schemas.settings import Settings, environment_name, load_settings
from store.heartbeats import HOLDS_S, PARTS
from tasks import app as celery_app
from tasks import wiring
from tasks.app import QUEUES, celery_settings
from tasks.priorities import priorities_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
VALIDATOR = runpy.run_path(str(DEPLOY / "kubernetes" / "validate.py"))
APP = importlib.import_module("tasks.app")  # `tasks.app` is the application itself
OURS = {environment_name(field) for field in Settings.model_fields}
OTHERS = {
    "FLOWER_CONF",  # Flower's own
    *(f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ENDPOINT")),
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "REMAP_SIGTERM",  # Celery's, read before there are settings
}
WORKERS = ("worker-reports", "worker-notifications")
ALL_PARTS = {"migrate", "listener", *WORKERS, "beat", "flower", "metrics"}


class Part(NamedTuple):
    """One way to start one part."""

    where: str
    name: str
    arguments: list[str]
    environment: dict[str, str]
    probes: list[list[str]]
    grace_s: float | None


def composed() -> Iterator[Part]:
    for name, service in COMPOSE["services"].items():
        if "redis_url" in service.get("secrets", ()):
            test = service.get("healthcheck", {}).get("test", ())
            probes = [test[2:]] if test[1:2] == ["scanherald"] else []
            grace_s = service.get("stop_grace_period", "0s")
            variables = {key: str(value) for key, value in service["environment"].items()}
            yield Part("compose", name, service["command"], variables, probes, float(grace_s[:-1]))


def unit_lines(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text("utf-8").splitlines()
    return [
        (key, value)
        for key, equals, value in (line.partition("=") for line in lines)
        if equals and not key.startswith("#")
    ]


def units() -> Iterator[Part]:
    common = unit_lines(DEPLOY / "systemd" / "scanherald-.service.d" / "common.conf")
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        lines = [*common, *unit_lines(path)]
        settings = dict(lines)
        program, *arguments = shlex.split(settings["ExecStart"].replace("%%", "%"))
        assert program == "/opt/scanherald/bin/scanherald"
        variables = dict(value.split("=", 1) for key, value in lines if key == "Environment")
        grace_s = settings.get("TimeoutStopSec")
        name = path.stem.removeprefix("scanherald-")
        yield Part(
            "systemd", name, arguments, variables, [], None if grace_s is None else float(grace_s)
        )


@cache
def objects(folder: str) -> list[dict[str, Any]]:
    built: list[dict[str, Any]] = VALIDATOR["built"](DEPLOY / "kubernetes" / folder)
    return built


def pods() -> Iterator[Part]:
    things = objects("overlays/example")
    maps = {thing["metadata"]["name"]: thing["data"] for thing in things if "data" in thing}
    for thing in things:
        if thing["kind"] not in ("Deployment", "Job"):
            continue
        pod = thing["spec"]["template"]["spec"]
        [container] = pod["containers"]
        variables: dict[str, str] = {}
        for source in container["envFrom"]:
            variables |= maps.get(source.get("configMapRef", {}).get("name"), {})
        variables |= {given["name"]: given["value"] for given in container.get("env", ())}
        probes = [
            container[kind]["exec"]["command"][1:]
            for kind in ("startupProbe", "livenessProbe")
            if "exec" in container.get(kind, {})
        ]
        yield Part(
            "kubernetes",
            thing["metadata"]["name"],
            container["args"],
            variables,
            probes,
            pod.get("terminationGracePeriodSeconds"),
        )


SHIPPED = [*composed(), *units(), *pods()]
each_part = pytest.mark.parametrize("part", SHIPPED, ids=lambda part: f"{part.where}-{part.name}")
each_worker = pytest.mark.parametrize(
    "part",
    [part for part in SHIPPED if part.arguments[0] == "worker"],
    ids=lambda part: f"{part.where}-{part.name}",
)


@cache
def commands() -> dict[str, Any]:
    known: dict[str, Any] = get_command(command_line).commands  # type: ignore[attr-defined]
    return known


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The command line's own reading; nothing runs."""
    command = commands()[arguments[0]]
    if isinstance(command, Stub):
        command = command.load()
    with command.make_context(arguments[0], arguments[1:]) as context:
        given: dict[str, Any] = context.params
        return given


def test_each_of_them_has_every_part() -> None:
    for where in ("compose", "systemd", "kubernetes"):
        assert {part.name for part in SHIPPED if part.where == where} == ALL_PARTS


@each_part
def test_every_command_is_one_of_ours(part: Part) -> None:
    parsed(part.arguments)
    for probe in part.probes:
        assert "--live" in probe  # a restart mends no Redis
        assert set(parsed(probe)["names"]) < set(PARTS)


@each_part
def test_every_variable_is_one_that_somebody_reads(part: Part) -> None:
    read = OURS | {f"{name}_FILE" for name in OURS} | OTHERS
    assert set(part.environment) <= read, set(part.environment) - read


def test_every_variable_of_the_other_files_is_one_that_somebody_reads() -> None:
    image = re.findall(r"^(?:ENV| {4}) ?([A-Z_]+)=", (ROOT / "Dockerfile").read_text(), re.M)
    dev = re.findall(r"^([A-Z_]+)=", (DEPLOY / "dev.env").read_text(), re.M)
    assert "SCANHERALD_HEARTBEATS_DIR" in image
    known = OURS | OTHERS | {"PIP_DISABLE_PIP_VERSION_CHECK", "COMPOSE_PROFILES"}
    assert {*image, *dev} <= known, {*image, *dev} - known


@each_worker
def test_sigterm_starts_a_soft_stop_and_leaves_it_the_time(part: Part) -> None:
    assert part.environment["REMAP_SIGTERM"] == "SIGQUIT"
    soft_s = celery_settings(load_settings())["worker_soft_shutdown_timeout"]
    assert part.grace_s is not None
    assert part.grace_s >= soft_s + 15


def test_the_image_starts_a_soft_stop_too() -> None:
    assert re.search(r"^ +REMAP_SIGTERM=SIGQUIT \\$", (ROOT / "Dockerfile").read_text(), re.M)


@pytest.mark.parametrize("script", ["scanherald worker", "run_celery_worker.py"])
def test_a_worker_typed_by_hand_starts_a_soft_stop(
    script: str, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    monkeypatch.setenv("REMAP_SIGTERM", "forgotten after the test")
    monkeypatch.delenv("REMAP_SIGTERM")
    monkeypatch.setattr(wiring, "use", lambda settings: None)
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    monkeypatch.setattr(
        celery_app, "worker_main", lambda _: seen.append(os.environ.get("REMAP_SIGTERM"))
    )
    if script == "scanherald worker":
        get_command(command_line).main(["worker"], standalone_mode=False)
    else:
        monkeypatch.setattr("sys.argv", [script])
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    assert seen == ["SIGQUIT"]


@pytest.mark.parametrize(("remapped", "says"), [("SIGQUIT", 0), (None, 1), ("", 1)])
def test_a_worker_of_celerys_own_command_says_that_it_would_wait_for_every_task(
    remapped: str | None, says: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(APP, "REMAP_SIGTERM", remapped)
    with capture_logs() as logs:
        worker_ready.send(sender=None)
    assert [log["event"] for log in logs] == ["sigterm_waits_for_every_task"] * says


@pytest.mark.parametrize("where", ["compose", "systemd", "kubernetes"])
def test_every_queue_has_its_worker(where: str) -> None:
    workers = [parsed(p.arguments) for p in SHIPPED if (p.where, p.name[:6]) == (where, "worker")]
    served = [name for worker in workers for given in worker["queue"] for name in given.split(",")]
    assert sorted(served) == sorted(QUEUES)


def test_the_build_is_given_what_the_wheel_is_made_of_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    assert let_through == {
        *packages,
        "pyproject.toml",
        project["project"]["readme"],
        "deploy/image",
    }
    assert "*" in ignored


def test_every_service_is_bounded_watched_and_owns_nothing() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["user"] not in ("root", "0", "0:0"), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")
        assert ("healthcheck" in service) == (name != "migrate"), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


def test_the_broker_keeps_what_it_is_given() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def file_variables() -> Iterator[str]:
    """The paths of every secret that a part reads."""
    for part in SHIPPED:
        names = (name for name in part.environment if name.endswith(("_FILE", "_CONF")))
        yield from (part.environment[name] for name in names)


def test_secrets_are_files_and_the_script_makes_each_of_them() -> None:
    script = (DEPLOY / "make-secrets").read_text()
    made = set(re.findall(r"\| make (\w+)", script))
    asked = set(COMPOSE["secrets"])
    asked |= {value.rpartition("/")[2] for value in file_variables()}
    for thing in of_kind("TriggerAuthentication"):
        asked |= {it["key"] for it in thing["spec"]["secretTargetRef"]}
    assert asked == made
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"password|secret|_key", str(value), re.I) or "/run/" in value, (
                name
            )


def test_the_watchdog_waits_as_long_as_a_heartbeat_holds() -> None:
    for path in (DEPLOY / "systemd").glob("*.service"):
        settings = dict(unit_lines(path))
        beats = path.stem.removeprefix("scanherald-") in {"listener", "beat", *WORKERS}
        assert settings.get("WatchdogSec") == (f"{HOLDS_S:.0f}" if beats else None), path


def of_kind(kind: str) -> Iterator[dict[str, Any]]:
    return (thing for thing in objects("overlays/example") if thing["kind"] == kind)


def test_scaling_counts_every_list_of_a_queue_and_the_lag_of_every_stream() -> None:
    settings = load_settings()
    steps = priorities_of("redis://").transport_options["priority_steps"]
    kombu = SimpleNamespace(sep=Channel.sep, priority=lambda n: n)
    for thing in of_kind("ScaledObject"):
        told = [trigger["metadata"] for trigger in thing["spec"]["triggers"]]
        name = thing["spec"]["scaleTargetRef"]["name"]
        if name == "listener":
            assert [it["stream"] for it in told] == list(settings.streams)
            assert {it["consumerGroup"] for it in told} == {settings.consumer_group}
        else:
            queue = name.removeprefix("worker-")
            lists = [Channel._q_for_pri(kombu, queue, step) for step in steps]
            assert [it["listName"] for it in told] == lists
            assert thing["spec"]["minReplicaCount"] >= 1  # the sweep, too, needs somebody
    assert len(list(of_kind("ScaledObject"))) == 3


def test_a_disruption_budget_never_holds_up_a_drain() -> None:
    budgets = {thing["metadata"]["name"]: thing["spec"] for thing in of_kind("PodDisruptionBudget")}
    assert set(budgets) == {"listener", "beat", *WORKERS}
    deployed = {thing["metadata"]["name"]: thing["spec"] for thing in of_kind("Deployment")}
    for name, spec in budgets.items():
        assert spec["maxUnavailable"] == 1
        chosen = spec["selector"]["matchLabels"].items()
        assert chosen <= deployed[name]["template"]["metadata"]["labels"].items()


def test_a_scaled_deployment_leaves_its_number_to_keda() -> None:
    scaled = {thing["spec"]["scaleTargetRef"]["name"] for thing in of_kind("ScaledObject")}
    for thing in of_kind("Deployment"):
        assert ("replicas" in thing["spec"]) == (thing["metadata"]["name"] not in scaled)


def misspell_a_probe(thing: dict[str, Any]) -> None:
    container = thing["spec"]["template"]["spec"]["containers"][0]
    container["livenesProbe"] = container.pop("livenessProbe")


def give_a_number(thing: dict[str, Any]) -> None:
    thing["spec"]["triggers"][0]["metadata"]["lagCount"] = 5


@pytest.mark.parametrize(
    ("kind", "spoil"), [("Deployment", misspell_a_probe), ("ScaledObject", give_a_number)]
)
def test_the_validator_finds_a_fault(kind: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    thing = yaml.safe_load(
        yaml.safe_dump(next(it for it in of_kind(kind) if it["metadata"]["name"] == "listener"))
    )
    assert list(VALIDATOR["faults"](thing)) == []
    spoil(thing)
    assert list(VALIDATOR["faults"](thing))
