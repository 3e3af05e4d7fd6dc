"""Writes the published contract, the table of settings and the tables of rules.

The models in ``schemas`` and the shipped rule packs are the one source: whoever
changes one runs ``make docs``, and a test compares what is committed with
``pages()``.  Output depends on them (and a page's own prose) alone: no clock, no
machine, no network.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import typing
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from compliance import rules
from compliance.rules import RulePack
from docs.metric_table import metrics_page
from docs.rule_tables import rules_page
from schemas import events, notifications, reports, scans
from schemas.events import PUBLISHED, CloudEvent, EventData, EventType
from schemas.notifications import Notification
from schemas.reports import Report
from schemas.scans import Scan
from schemas.settings import Settings, environment_name

DOCS = Path(__file__).parent
CONTRACT_VERSION = "1.0.0"
"""Of the event contract and the webhook's payload; a breaking change raises the first number."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IN_SCHEMA = "#/$defs/{name}"
IN_ASYNCAPI = "#/components/schemas/{name}"
EXAMPLE_SCAN_ID = "3176b0cd-199b-5ec6-b280-ec5c6e92338a"

Schema = dict[str, Any]

_NULL = {"type": "null"}

_MODELS: dict[str, type] = {
    name: value
    for module in (scans, events, reports, notifications, rules)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, (msgspec.Struct, Enum))
}


def pages() -> dict[Path, str]:
    """Every generated page by its path.  Pure: the same models give the same text."""
    contract = DOCS / "contract"
    return {
        contract / "event.schema.json": _json(_event_schema()),
        contract / "scan.schema.json": _json(_model_schema("scan", Scan)),
        contract / "report.schema.json": _json(_model_schema("report", Report)),
        contract / "notification.schema.json": _json(_notification_schema()),
        contract / "rule-pack.schema.json": _json(_model_schema("rule-pack", RulePack)),
        contract / "asyncapi.json": _json(asyncapi_document()),
        DOCS / "configuration.md": configuration_page(),
        DOCS / "rules.md": rules_page(DOCS / "rules.md"),
        DOCS / "metrics.md": metrics_page(DOCS / "metrics.md"),
    }


def write_pages() -> None:
    """Write every page.  Safe to repeat."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _json(document: Schema) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# JSON Schemas


def _model_schema(name: str, model: type) -> Schema:
    return _document(name, model.__name__, _definitions(model))


def _event_schema() -> Schema:
    return _document("event", CloudEvent.__name__, _event_definitions(IN_SCHEMA))


def _notification_schema() -> Schema:
    return _document("notification", "WebhookEvent", _notification_definitions(IN_SCHEMA))


def _document(name: str, root: str, definitions: Schema) -> Schema:
    return {
        "$schema": DIALECT,
        "$id": f"urn:scanherald:contract:{name}",
        "title": f"scanherald {name}",
        "$ref": IN_SCHEMA.format(name=root),
        "$defs": definitions,
    }


def _definitions(*models: type, ref: str = IN_SCHEMA) -> Schema:
    """The models and all they hold, by class name, with the prose that stands in the code."""
    _, components = msgspec.json.schema_components(models, ref_template=ref)
    for name, schema in components.items():
        model = _MODELS[name]
        schema["description"] = _prose(model.__doc__ or "")
        if issubclass(model, Enum):
            schema["enum"] = [member.value for member in model]
        elif issubclass(model, msgspec.Struct):
            notes = _field_notes(model)
            for field in msgspec.structs.fields(model):
                if field.name in notes:
                    schema["properties"][field.encode_name]["description"] = notes[field.name]
    return {name: components[name] for name in sorted(components)}


def _field_notes(model: type) -> dict[str, str]:
    """The string below each field of a class, which Python itself does not keep."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101  tells the type checker what getsource gives
    return {
        field.target.id: _prose(note.value.value)
        for field, note in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(note, ast.Expr)
        and isinstance(note.value, ast.Constant)
        and isinstance(note.value.value, str)
    }


def _prose(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def _event_definitions(ref: str) -> Schema:
    """The event in its two modes: what the struct cannot say is said here, once."""

    def to(model: type) -> Schema:
        return {"$ref": ref.format(name=model.__name__)}

    definitions = _definitions(CloudEvent, EventData, Scan, ref=ref)
    event = definitions["CloudEvent"]
    attributes = event["properties"]
    attributes["data"]["type"] = ["object", "null"]
    attributes["type"] = {
        "enum": [kind.value for kind in PUBLISHED],
        "default": EventType.SCAN_COMPLETED.value,
        "description": attributes["type"]["description"],
    }
    attributes["specversion"] = {"const": "1.0", "default": "1.0"}
    definitions["BinaryEntry"] = _binary_entry(attributes, {"anyOf": [to(Scan), to(EventData)]})
    definitions["StructuredEntry"] = {
        "title": "StructuredEntry",
        "description": "One stream entry, structured mode: the whole event in one field.",
        "type": "object",
        "properties": {
            "event": {
                "type": "string",
                "contentMediaType": "application/cloudevents+json",
                "contentSchema": to(CloudEvent),
            }
        },
        "required": ["event"],
    }
    event["anyOf"] = [
        {"required": ["data"], "properties": {"data": {"type": "object"}}},
        {"required": ["dataref"], "properties": {"dataref": {"type": "string", "minLength": 1}}},
    ]
    event["if"] = {"properties": {"type": {"const": EventType.SCAN_COMPLETED.value}}}
    event["then"] = _data_is(to(Scan))
    event["else"] = _data_is(to(EventData))
    return definitions


def _data_is(content: Schema) -> Schema:
    return {"properties": {"data": {"anyOf": [content, _NULL]}}}


def _binary_entry(attributes: Mapping[str, Schema], content: Schema) -> Schema:
    """The same attributes as entry fields: every one a string, none of them null."""
    return {
        "title": "BinaryEntry",
        "description": "One stream entry, binary mode: one field per attribute.",
        "type": "object",
        "properties": {
            **{name: _never_null(schema) for name, schema in attributes.items()},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": content,
                "description": attributes["data"]["description"],
            },
        },
        "anyOf": [{"required": ["data"]}, {"required": ["dataref"]}],
    }


def _notification_definitions(ref: str) -> Schema:
    """The webhook's body: a notification as the ``data`` of a CloudEvent, bounded in size.

    The envelope says some fields of the model, so ``data`` does not say them again.
    """
    definitions = _definitions(Notification, ref=ref)
    data = definitions["Notification"]
    fields = data["properties"]
    time = fields.pop("occurred_at")
    kind = fields.pop("type")
    del fields["traceparent"]  # it travels as a header
    del fields["weighs"]  # for who is told
    for spoken in (fields, definitions["DigestLine"]["properties"]):
        del spoken["variant"], spoken["values"]  # what people are told by; machines read the rest
    details = {**fields.pop("data"), "description": "What the scanner said, bounded."}
    del details["default"]
    data["description"] = "What happened. Lists and texts are bounded; what was cut is marked."
    data["required"] = [name for name in fields if name != "lines"]  # of digests alone
    fields["details"] = details
    fields["truncated"] = {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "The true length of each list that lost entries to the size bound.",
    }
    definitions["WebhookEvent"] = {
        "title": "WebhookEvent",
        "description": "The body of a webhook: one CloudEvents 1.0 event below 20 kB.",
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "description": "The same in every attempt, as `webhook-id`."},
            "source": {"const": "scanherald"},
            "type": kind,
            "time": {**time, "format": "date-time", "description": "When it happened, in UTC."},
            "datacontenttype": {"const": "application/json"},
            "subject": {"type": "string", "description": "The domain, where there is one."},
            "data": {"$ref": ref.format(name="Notification")},
        },
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "data"],
    }
    return definitions


def _never_null(schema: Schema) -> Schema:
    alternatives = schema.get("anyOf", [])
    if _NULL not in alternatives:
        return schema
    [one] = [alternative for alternative in alternatives if alternative != _NULL]
    return {**one, "description": schema["description"]}


# AsyncAPI


def asyncapi_document() -> Schema:
    """AsyncAPI 3.0: the stream we read and the webhooks we send."""
    [stream] = Settings.model_fields["streams"].default
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "scanherald",
            "version": CONTRACT_VERSION,
            "description": "Scan events in, signed webhooks out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "stream": {
                "host": urlsplit(Settings.model_fields["redis_url"].default).netloc,
                "protocol": "redis",
                "description": "The default of REDIS_URL; any Redis or Valkey.",
            }
        },
        "channels": {
            "scanEvents": {
                "address": stream,
                "title": "Stream of scan events",
                "description": "A Redis stream. One entry is one CloudEvents 1.0 event: "
                f"XADD {stream} * data '{{…}}'. Other names: SCANHERALD_STREAMS.",
                "servers": [{"$ref": "#/servers/stream"}],
                "messages": {
                    "binaryEntry": {"$ref": "#/components/messages/binaryEntry"},
                    "structuredEntry": {"$ref": "#/components/messages/structuredEntry"},
                },
            },
            "webhook": {
                "address": None,
                "title": "A subscriber's webhook",
                "description": "POST to the address that the subscriber gave.",
                "messages": {"notification": {"$ref": "#/components/messages/notification"}},
            },
        },
        "operations": {
            "receiveScanEvent": {
                "action": "receive",
                "channel": {"$ref": "#/channels/scanEvents"},
                "summary": "Record the event, render the reports, tell the subscribers.",
                "messages": [
                    {"$ref": "#/channels/scanEvents/messages/binaryEntry"},
                    {"$ref": "#/channels/scanEvents/messages/structuredEntry"},
                ],
            },
            "sendWebhook": {
                "action": "send",
                "channel": {"$ref": "#/channels/webhook"},
                "summary": "Tell a subscriber what happened, at least once, always with one id.",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
                "messages": [{"$ref": "#/channels/webhook/messages/notification"}],
            },
        },
        "components": {
            "messages": _messages(),
            "schemas": {
                **_event_definitions(IN_ASYNCAPI),
                **_notification_definitions(IN_ASYNCAPI),
                "WebhookHeaders": _webhook_headers(),
            },
        },
    }


def _messages() -> Schema:
    scan = {"scan_id": EXAMPLE_SCAN_ID, "domain": "example.org"}
    return {
        "binaryEntry": {
            "title": "Event, one entry field per attribute",
            "payload": {"$ref": IN_ASYNCAPI.format(name="BinaryEntry")},
            "examples": [{"name": "shortest", "payload": {"data": json.dumps(scan)}}],
        },
        "structuredEntry": {
            "title": "Event, whole in one entry field",
            "payload": {"$ref": IN_ASYNCAPI.format(name="StructuredEntry")},
            "examples": [{"name": "shortest", "payload": {"event": json.dumps({"data": scan})}}],
        },
        "notification": {
            "title": "Notification, signed as in Standard Webhooks",
            "headers": {"$ref": IN_ASYNCAPI.format(name="WebhookHeaders")},
            "payload": {"$ref": IN_ASYNCAPI.format(name="WebhookEvent")},
        },
    }


def _webhook_headers() -> Schema:
    return {
        "title": "WebhookHeaders",
        "type": "object",
        "properties": {
            "webhook-id": {
                "type": "string",
                "description": "The same in every attempt: a receiver tells a repeat by it.",
            },
            "webhook-timestamp": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "Unix time of this attempt, s.",
            },
            "webhook-signature": {
                "type": "string",
                "description": "v1,<base64 of HMAC-SHA256 over id.timestamp.body>; several, "
                "separated by spaces, while a secret is rotated.",
            },
            "traceparent": {
                "type": "string",
                "description": "W3C trace context, where the event brought one.",
            },
        },
        "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    }


# Settings

_CONFIGURATION_HEAD = """\
# Configuration

Written by `make docs` from `schemas/settings.py`; change it there.

Every setting is an environment variable, read once when a process starts. A variable without
the prefix `SCANHERALD_` is also read with it. A value that cannot be used stops the process
with a message that names the variable. A dash means that there is no default.

**From a file.** `NAME_FILE=/path` gives any of them but OpenTelemetry's by the content of a file:
`DATABASE_URL_FILE=/run/secrets/database_url`. One newline at its end is not part of the value.
The variable and its file together, or a file that is missing, unreadable, empty, not UTF-8 or above
64 KiB, stop the process with a message that names both and never shows the value. An empty
variable counts as absent.

```sh
scanherald config show       # every setting that differs from its default, and where it comes from
scanherald config check      # tries each of them: ok, warning or failed, with what to do
```

`config show` masks secrets and the passwords in URLs; `--all` adds the defaults, `--json` is for
scripts. `config check` sends nothing to anybody and makes nothing: an object that it puts into the
artifact store is deleted again, and a database without a ledger stays so. Exit status: 0, also
with warnings; 1 where something failed or the settings cannot be used at all. Each check ends
within `SCANHERALD_HEALTH_TIMEOUT_S`.

| variable | default | meaning |
|---|---|---|
"""


def configuration_page() -> str:
    """One row per setting.  A secret's default is never shown."""
    rows = (
        f"| `{environment_name(name)}` | {_default(field)} | {_cell(field.description or '')} |\n"
        for name, field in Settings.model_fields.items()
    )
    return _CONFIGURATION_HEAD + "".join(rows)


def _default(field: FieldInfo) -> str:
    if _holds_a_secret(field.annotation) or field.default in (None, ()):
        return "–"
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return "`" + _cell(",".join(_as_typed(value) for value in values)) + "`"


def _as_typed(value: object) -> str:
    """The value as an operator would type it."""
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _holds_a_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_a_secret, typing.get_args(annotation)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_pages()
