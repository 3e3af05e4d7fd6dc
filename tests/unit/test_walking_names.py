"""Names that would walk out of the artifact folder do not get a step far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renderers.registry import RENDERERS
from schemas.errors import InvalidEvent
from schemas.reports import Format
from schemas.scans import decode_scan
from tasks.reports import render_formats

WALKING = [
    "../../../../tmp/walked", "/etc/walked", "..", "a/../../b", "..\\..\\walked", "%2e%2e%2fwalked",
    "file:///etc/walked", "~/walked", "shop.example/../../walked", "C:\\walked", "．．／walked",
]  # fmt: skip


@pytest.mark.parametrize("name", [*WALKING, "a0000000-0000-0000-0000-000000000001/../../x"])
def test_a_scan_id_is_a_uuid_or_the_scan_is_refused(make_scan: Any, name: str) -> None:
    with pytest.raises(InvalidEvent, match="UUID"):
        decode_scan(json.dumps({**json.loads(make_scan()), "scan_id": name}).encode())


def test_no_domain_leads_out_of_the_artifact_folder(
    parts: Any, make_scan: Any, record: Any, rows: Any, tmp_path: Path
) -> None:
    for number, name in enumerate(WALKING, 1):
        ticket = record(parts, make_scan(number, domain=name, scan_mode=name, status=name))
        assert set(render_formats(parts, ticket.run_id, list(Format)).values()) == {"ready"}
    folder = parts.artifacts.folder.resolve()
    written = {Path(row["uri"]) for row in rows(parts, "reports")}
    assert len(written) == len(WALKING) * len(RENDERERS)
    assert all(path == path.resolve() and path.is_relative_to(folder) for path in written)
    assert {path for path in folder.rglob("*") if path.is_file()} == written
    assert not list(tmp_path.rglob("*walked*"))
