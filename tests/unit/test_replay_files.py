"""Files and folders as a replay's source: what is a document, and where it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from listener import replay_files
from listener.replay_files import FileSource, resolve, walk
from listener.replay_items import Item
from schemas.errors import NotFound
from schemas.replays import Selection

LIMIT = 100_000


def items(*paths: Path, after: Any = None, limit: int = LIMIT, **filters: Any) -> list[Item]:
    selection = Selection(files=resolve(paths), **filters)
    source = FileSource(selection, limit)
    return [item for page in source.pages(after) for item in page.items]


def found(listed: list[Item]) -> list[str]:
    """The domains of what was decoded, and a mark for what was refused."""
    return [
        item.decoded.event.domain or "" if item.decoded is not None else f"! {item.refused}"
        for item in listed
    ]


def line(make_scan: Any, number: int, domain: str) -> bytes:
    return make_scan(number, domain=domain) + b"\n"


def test_a_document_is_a_scan_or_a_structured_event(tmp_path: Path, make_scan: Any) -> None:
    (tmp_path / "scan.json").write_bytes(
        json.dumps(json.loads(make_scan(1, domain="a.example")), indent=2).encode()
    )
    event = {"specversion": "1.0", "type": "scan.failed", "data": {"domain": "b.example"}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    del event["specversion"]
    (tmp_path / "loose.json").write_text(json.dumps(event))
    listed = items(tmp_path)
    assert found(listed) == ["b.example", "b.example", "a.example"]
    assert [item.decoded.event.type for item in listed if item.decoded] == [
        "scan.failed",
        "scan.failed",
        "scan.completed",
    ]


def test_a_scan_with_a_field_called_data_is_a_scan(tmp_path: Path, make_scan: Any) -> None:
    (tmp_path / "scan.json").write_bytes(make_scan(1, data={"x": 1}))
    assert found(items(tmp_path)) == ["shop.example"]


def test_a_bad_line_is_named_and_stops_nothing(tmp_path: Path, make_scan: Any) -> None:
    path = tmp_path / "scans.jsonl"
    path.write_bytes(
        line(make_scan, 1, "a.example")
        + b"{broken\n\n[1]\n\xff\xfe\n"
        + line(make_scan, 2, "b.example").rstrip()
    )
    listed = items(path)
    assert [item.name for item in listed] == [f"{path}:{number}" for number in (1, 2, 4, 5, 6)]
    assert [item.refused is None for item in listed] == [True, False, False, False, True]
    assert found(listed)[-1] == "b.example"


def test_a_line_beyond_the_bound_is_refused_and_not_held(
    tmp_path: Path, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_files, "PAGE_BYTES", 1000)
    path = tmp_path / "scans.ndjson"
    path.write_bytes(
        line(make_scan, 1, "a.example") + b"x" * 5000 + b"\n" + line(make_scan, 2, "b.example")
    )
    assert found(items(path, limit=2000)) == [
        "a.example",
        "! longer than 2,000 bytes (SCANHERALD_MAX_ENTRY_BYTES)",
        "b.example",
    ]
    path.write_bytes(b"x" * 5000)
    assert len(items(path, limit=2000)) == 1


def test_a_document_beyond_the_bound_is_refused(tmp_path: Path, make_scan: Any) -> None:
    (tmp_path / "big.json").write_bytes(make_scan(1, note="x" * 3000))
    assert found(items(tmp_path, limit=2000))[0].startswith("! longer than 2,000 bytes")


def test_a_folder_is_read_by_name_with_its_folders_and_other_files_are_left(
    tmp_path: Path, make_scan: Any
) -> None:
    for name in ("b.json", "a/z.json", "a/b/c.JSON", "c.jsonl", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(line(make_scan, 1, "x.example"))
    (tmp_path / "loop").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in walk(tmp_path)]
    assert names == ["a/b/c.JSON", "a/z.json", "b.json", "c.jsonl"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make_scan: Any) -> None:
    gone = tmp_path / "gone.json"
    gone.write_bytes(b"")
    other = tmp_path / "other.json"
    other.write_bytes(make_scan(1))
    source = FileSource(Selection(files=resolve([gone, other])), LIMIT)
    gone.unlink()
    listed = [item for page in source.pages(None) for item in page.items]
    assert found(listed) == ["! cannot be read: No such file or directory", "shop.example"]
    with pytest.raises(NotFound, match=r"gone\.json"):
        resolve([gone])


@pytest.mark.parametrize("stop", range(7))
def test_it_goes_on_behind_any_document(
    tmp_path: Path, make_scan: Any, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.json").write_bytes(make_scan(1, domain="1.example"))
    (folder / "deep" / "b.jsonl").write_bytes(
        b"".join(line(make_scan, number, f"{number}.example") for number in (2, 3, 4))
    )
    (folder / "z.json").write_bytes(make_scan(5, domain="5.example"))
    last = tmp_path / "last.jsonl"
    last.write_bytes(line(make_scan, 6, "6.example") + line(make_scan, 7, "7.example"))
    monkeypatch.setattr(replay_files, "PAGE_ITEMS", 2)

    whole = items(folder, last)
    rest = items(folder, last, after=whole[stop].position)

    assert found(whole) == [f"{number}.example" for number in range(1, 8)]
    assert found(rest) == found(whole)[stop + 1 :]


def test_filters_choose_among_what_can_be_decoded(tmp_path: Path, make_scan: Any) -> None:
    path = tmp_path / "scans.jsonl"
    failed = {"type": "scan.failed", "data": {"domain": "A.example", "scan_id": "s-1"}}
    path.write_bytes(
        line(make_scan, 1, "a.example")
        + make_scan(2, domain="b.other", status="failed")
        + b"\n"
        + json.dumps(failed).encode()
        + b"\nbroken\n"
    )
    assert found(items(path, domain="*.EXAMPLE"))[:2] == ["a.example", "A.example"]
    assert found(items(path, status="failed"))[0] == "b.other"
    assert found(items(path, type="scan.failed"))[0] == "A.example"
    assert found(items(path, scan_id="s-1"))[0] == "A.example"
    assert len(items(path, scan_id="s-1")) == 2, "what is broken is counted, too"


def test_how_far_it_is_rises_from_nought_to_one(tmp_path: Path, make_scan: Any) -> None:
    path = tmp_path / "scans.jsonl"
    path.write_bytes(b"".join(line(make_scan, number, "a.example") for number in range(10)))
    source = FileSource(Selection(files=resolve([path])), LIMIT)
    fractions = [source.fraction(item.position) for item in items(path)]
    assert source.fraction(None) == 0.0
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
