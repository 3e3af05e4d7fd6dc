"""The generated pages are current, and other people's tools agree with them."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel, SecretStr

from channels.webhook import event_body
from docs.generate import DOCS, asyncapi_document, configuration_page, pages
from schemas.errors import InvalidEvent
from schemas.events import PUBLISHED, EventType, decode_entry
from schemas.notifications import (
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    Fact,
    FindingSummary,
    Message,
    Notification,
)
from schemas.reports import Severity
from schemas.settings import Settings, environment_name

ROOT = DOCS.parent
SCANS = sorted((ROOT / "tests" / "data" / "scans").glob("*.json"))
PAGES = pages()
SCHEMAS = sorted(path for path in PAGES if path.name.endswith(".schema.json"))
SCAN = {"scan_id": "3176b0cd-199b-5ec6-b280-ec5c6e92338a", "domain": "example.org"}
CONTRACT_PAGE = (DOCS / "event-contract.md").read_text(encoding="utf-8")


def schema(name: str) -> Any:
    return json.loads(PAGES[DOCS / "contract" / f"{name}.schema.json"])


def definition(name: str) -> Draft202012Validator:
    event = schema("event")
    return Draft202012Validator({**event, "$ref": f"#/$defs/{name}"})


def is_accepted(fields: dict[str, str]) -> bool:
    """The decoder's own verdict on an entry."""
    try:
        decode_entry({k.encode(): v.encode() for k, v in fields.items()}, max_bytes=2**24)
    except InvalidEvent:
        return False
    return True


# Currency


@pytest.mark.parametrize("path", list(PAGES), ids=lambda path: path.name)
def test_a_generated_page_is_current(path: Path) -> None:
    committed = path.read_text(encoding="utf-8") if path.exists() else None
    assert committed == PAGES[path], f"{path.relative_to(ROOT)} is out of date: run make docs"


def test_the_contract_folder_holds_generated_pages_alone() -> None:
    contract = DOCS / "contract"
    assert set(contract.iterdir()) == {path for path in PAGES if path.parent == contract}


def test_generating_again_gives_the_same_text() -> None:
    assert pages() == PAGES


def test_no_generated_page_names_this_machine() -> None:
    for text in PAGES.values():
        assert str(ROOT) not in text
        assert str(Path.home()) + "/" not in text


# JSON Schemas


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_valid_json_schema_with_an_id_of_its_own(path: Path) -> None:
    document = json.loads(PAGES[path])
    Draft202012Validator.check_schema(document)
    assert document["$id"] == f"urn:scanherald:contract:{path.name.removesuffix('.schema.json')}"


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_every_reference_of_a_schema_leads_somewhere(path: Path) -> None:
    document = json.loads(PAGES[path])
    assert all(resolve(document, ref) is not None for ref in references(document))


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_a_real_scan_is_valid(path: Path) -> None:
    scan = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator(schema("scan")).validate(scan)
    Draft202012Validator(schema("event")).validate({"specversion": "1.0", "data": scan})


def test_all_eleven_real_scans_are_there() -> None:
    assert len(SCANS) == 11


@pytest.mark.parametrize(
    "event",
    [
        {"data": SCAN},
        {"data": SCAN, "dataref": None, "id": None, "time": "2026-01-31T12:00:00Z"},
        {"data": None, "dataref": "s3://bucket/scan"},
        {"dataref": "s3://bucket/scan", "type": "scan.failed"},
        {"data": {}, "type": "schedule.created", "unknown": 1},
        {"data": {**SCAN, "cookies": [{"cookie_duration": 3.5, "iab_purposes": [1, "2"]}]}},
        {},
        {"data": None},
        {"dataref": ""},
        {"data": {}},
        {"data": {"domain": "example.org"}},
        {"data": {**SCAN, "domain": ""}},
        {"data": {**SCAN, "domain": "example.org\n"}},
        {"data": {**SCAN, "cookies": [{"name": None}]}},
        {"data": {**SCAN, "page_count": 2**53 + 1}},
        {"data": [], "type": "scan.failed"},
        {"data": {"scan_id": 5}, "type": "scan.failed"},
        {"data": SCAN, "type": "scan.done"},
        {"data": SCAN, "type": None},
        {"data": SCAN, "specversion": "0.3"},
        {"data": SCAN, "id": "a\x00"},
        {"data": SCAN, "userid": "a" * 1025},
        {"data": SCAN, "source": None},
    ],
)
def test_the_published_schema_and_the_decoder_agree(event: dict[str, Any]) -> None:
    valid = Draft202012Validator(schema("event")).is_valid(event)
    assert valid == is_accepted({"event": json.dumps(event)})


@pytest.mark.parametrize(
    "fields",
    [
        {"data": json.dumps(SCAN)},
        {"data": json.dumps(SCAN), "type": "scan.completed", "id": "1", "unknown": "x"},
        {"dataref": "s3://bucket/scan", "userid": "user-1"},
        {},
        {"type": "scan.failed"},
        {"data": json.dumps(SCAN), "type": "scan.done"},
        {"data": json.dumps(SCAN), "traceparent": "a\nb"},
    ],
)
def test_the_published_entry_and_the_decoder_agree(fields: dict[str, str]) -> None:
    assert definition("BinaryEntry").is_valid(fields) == is_accepted(fields)


def test_the_schema_names_the_types_of_the_contract_in_order() -> None:
    published = schema("event")["$defs"]["CloudEvent"]["properties"]["type"]["enum"]
    assert published == [kind.value for kind in PUBLISHED]
    told = schema("notification")["$defs"]["EventType"]["enum"]
    assert told == [kind.value for kind in EventType]


def test_a_schema_carries_the_prose_of_the_models() -> None:
    cookie = schema("scan")["$defs"]["Cookie"]["properties"]
    assert cookie["cookie_duration"]["description"] == '"Session", "30 days", or seconds.'
    for attribute in ("data", "dataref", "userid", "traceparent"):
        assert schema("event")["$defs"]["CloudEvent"]["properties"][attribute]["description"]
        assert schema("event")["$defs"]["BinaryEntry"]["properties"][attribute]["description"]


# AsyncAPI


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def resolve(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        document = document[part]
    return document


def test_the_asyncapi_document_has_the_required_structure() -> None:
    document = asyncapi_document()
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    assert document["channels"]["scanEvents"]["address"] == "scans:events"
    assert document["operations"]["receiveScanEvent"]["action"] == "receive"
    assert document["operations"]["sendWebhook"]["action"] == "send"
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert resolve(document, channel)["messages"]
        assert all(one["$ref"].startswith(f"{channel}/messages/") for one in operation["messages"])
    for reference in references(document):
        assert resolve(document, reference) is not None


@pytest.mark.parametrize("name", list(asyncapi_document()["components"]["schemas"]))
def test_an_embedded_schema_is_valid_in_both_dialects(name: str) -> None:
    embedded = asyncapi_document()["components"]["schemas"][name]
    Draft7Validator.check_schema(embedded)  # what AsyncAPI's own schema dialect is made of
    Draft202012Validator.check_schema(embedded)


def test_every_example_of_a_message_is_valid_and_accepted() -> None:
    document = asyncapi_document()
    messages = document["components"]["messages"].values()
    examples = [(one, example) for one in messages for example in one.get("examples", [])]
    assert len(examples) == 2
    for message, example in examples:
        Draft7Validator({**document, **message["payload"]}).validate(example["payload"])
        assert is_accepted(example["payload"])


# The webhook


def webhook_body(**fields: Any) -> Any:
    notification = Notification(
        **{
            "event_key": f"scan.completed:{SCAN['scan_id']}",
            "type": EventType.SCAN_COMPLETED,
            "occurred_at": datetime(2026, 1, 31, 12, tzinfo=UTC),
            "domain": "example.org",
            "scan_id": SCAN["scan_id"],
            "severity": Severity.HIGH,
            "title": "Scan completed",
            "summary": "Two findings",
            **fields,
        }
    )
    address = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://example.org/", secret="-")
    message = Message(message_id="msg_1", notification=notification, address=address)
    return json.loads(event_body(message))


FINDING = FindingSummary(rule_id="r", severity=Severity.LOW, title="t" * 200, count=1)
LINK = ArtifactLink(format="pdf", uri="file:///r.pdf", size_bytes=1, sha256="0" * 64)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"domain": None, "scan_id": None, "traceparent": "00-1-2-03"},
        {"facts": (Fact(label="Score", value="71"),), "data": {"a": [1, {"b": None}]}},
        {"findings": (FINDING,), "artifacts": (LINK,), "missing_formats": ("csv",)},
        {"findings": (FINDING,) * 500, "artifacts": (LINK,) * 4},
        {"findings": (FINDING,) * 500, "summary": "é" * 50_000, "title": "t" * 50_000},
    ],
)
def test_a_webhook_as_sent_is_valid(fields: dict[str, Any]) -> None:
    body = webhook_body(**fields)
    document = schema("notification")
    Draft202012Validator(document).validate(body)
    assert body.keys() <= document["$defs"]["WebhookEvent"]["properties"].keys()
    assert body["data"].keys() <= document["$defs"]["Notification"]["properties"].keys()


def test_a_webhook_without_its_summary_is_not_valid() -> None:
    body = webhook_body()
    del body["data"]["summary"]
    assert not Draft202012Validator(schema("notification")).is_valid(body)


# Pages for people


def test_every_setting_has_a_row_and_a_meaning() -> None:
    rows = [line.split(" | ") for line in configuration_page().splitlines() if "| `" in line]
    assert [row[0].strip("| `") for row in rows] == [
        environment_name(field) for field in Settings.model_fields
    ]
    assert all(row[2].strip("| ") for row in rows)


def test_a_secret_is_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithSecrets(BaseModel):
        smtp_password: SecretStr | None = SecretStr("hush")
        encryption_keys: tuple[SecretStr, ...] = (SecretStr("hush"),)

    fields = {**Settings.model_fields, **WithSecrets.model_fields}
    monkeypatch.setattr(Settings, "__pydantic_fields__", fields)
    page = configuration_page()
    assert "hush" not in page
    assert "***" not in page


def shell_examples() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", CONTRACT_PAGE, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("words", shell_examples(), ids=lambda words: words[4])
def test_a_shell_example_of_the_contract_page_is_accepted(words: list[str]) -> None:
    assert words[:4] == ["redis-cli", "XADD", "scans:events", "*"]
    assert is_accepted(dict(zip(words[4::2], words[5::2], strict=True)))


def test_the_python_example_of_the_contract_page_is_accepted() -> None:
    [block] = re.findall(r"```python\n(.*?)```", CONTRACT_PAGE, re.DOTALL)
    [scan] = [
        ast.literal_eval(node.value)
        for node in ast.parse(block).body
        if isinstance(node, ast.Assign)
    ]
    assert is_accepted({"data": json.dumps(scan)})


def refused_examples() -> list[tuple[str, str]]:
    [block] = re.findall(r"```text\n(.*?)```", CONTRACT_PAGE, re.DOTALL)
    lines = block.splitlines()
    return list(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


@pytest.mark.parametrize(("entry", "reason"), refused_examples())
def test_a_refused_example_of_the_contract_page_earns_its_reason(entry: str, reason: str) -> None:
    fields = {key.encode(): value.encode() for key, value in json.loads(entry).items()}
    with pytest.raises(InvalidEvent) as caught:
        decode_entry(fields, max_bytes=2**24)
    assert str(caught.value) == reason


def test_the_contract_page_names_every_type() -> None:
    for kind in PUBLISHED:
        assert f"`{kind}`" in CONTRACT_PAGE


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[>=;\s]", requirement, maxsplit=1)[0]
        for extra in [project["dependencies"], *project["optional-dependencies"].values()]
        for requirement in extra
    }
    page = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| ([\w\[\]-]+) \|", page, re.MULTILINE)) - {"package"}
    assert explained == declared
