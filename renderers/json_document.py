"""The JSON report: the Report model as it stands, with a schema generated from it."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.presentation import PLAIN, Presentation
from schemas.reports import Report

_encoder = msgspec.json.Encoder(order="deterministic")


def render_json(report: Report, _presentation: Presentation = PLAIN) -> bytes:
    """UTF-8 JSON, keys in the model's order, a final line feed; decodes to the same Report."""
    return _encoder.encode_lines((report,))  # one line: the line feed costs no copy


def report_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of every JSON report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "scanherald report",
        **msgspec.json.schema(Report),
    }
