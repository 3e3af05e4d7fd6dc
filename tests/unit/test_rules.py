import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from compliance import rules as rule_packs
from compliance.assess import Bounds, assess
from compliance.rules import (
    MAX_DEPTH,
    PACKS,
    All,
    Condition,
    SessionCookie,
    StorageKeyPresent,
    decode_pack,
    file_faults,
    known_packs,
    load_pack,
    pack_faults,
)
from docs.generate import DOCS, pages
from docs.rule_tables import rules_page
from schemas.errors import InvalidSettings
from schemas.reports import Severity
from schemas.scans import Scan, decode_scan

ROOT = Path(__file__).parents[2]
PACK = load_pack("eu-baseline")
SCAN = (ROOT / "tests/data/scans/cookieblock__lakersnation.com.json").read_bytes()

QUIET = {
    "name": "id", "domain": "example.org", "path": "/", "category": "necessary",
    "cookie_type": "First Party", "set_after_accept": True, "cookie_duration": "1 day",
    "vendor": "Example", "description": "Keeps the basket.", "secure": True, "http_only": True,
    "same_site": "Lax", "requires_review": False,
}  # fmt: skip


def findings_of(**fields):
    storages = fields.pop("storages", None)
    scan = msgspec.convert(
        {
            "scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11",
            "domain": "example.org",
            "page_count": 1,
            "cookies": [{**QUIET, **fields}],
            "storages": storages,
        },
        Scan,
    )
    report = assess(scan, scan_sha256="0" * 64, pack=PACK, bounds=Bounds(100, 8192))
    return {finding.rule_id: finding.severity for finding in report.findings}


def test_a_cookie_without_offence_has_no_findings():
    assert findings_of() == {}


@pytest.mark.parametrize(
    ("rule_id", "severity", "fields"),
    [
        ("consent.advertising-before-choice", Severity.HIGH,
         {"category": "advertising", "set_after_accept": False}),
        ("consent.third-party-before-choice", Severity.HIGH,
         {"cookie_type": "Third Party", "set_after_accept": False}),
        ("consent.analytics-before-choice", Severity.MEDIUM,
         {"category": "analytics", "set_after_accept": False}),
        ("consent.functional-before-choice", Severity.LOW,
         {"category": "functional", "set_after_accept": False}),
        ("classification.unclassified", Severity.MEDIUM, {"category": None}),
        ("transparency.incomplete-description", Severity.LOW, {"vendor": None}),
        ("transparency.incomplete-description", Severity.LOW, {"description": " "}),
        ("transparency.incomplete-description", Severity.LOW, {"cookie_duration": None}),
        ("lifetime.analytics-over-13-months", Severity.MEDIUM,
         {"category": "analytics", "cookie_duration": "2 years"}),
        ("lifetime.over-24-months", Severity.LOW, {"cookie_duration": "25 months"}),
        ("security.not-secure", Severity.LOW, {"secure": False}),
        ("security.necessary-session-readable", Severity.LOW,
         {"cookie_duration": "Session", "http_only": False}),
        ("storage.keys-present", Severity.INFO, {"storages": {"localStorage": {"key": "1"}}}),
        ("classification.needs-review", Severity.INFO, {"requires_review": True}),
    ],
)  # fmt: skip
def test_a_rule_finds_its_offence_and_nothing_else(rule_id, severity, fields):
    assert findings_of(**fields) == {rule_id: severity}


def test_samesite_none_without_secure_is_found_beside_the_missing_secure():
    assert findings_of(same_site="None", secure=False) == {
        "security.samesite-none-without-secure": Severity.MEDIUM,
        "security.not-secure": Severity.LOW,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"category": "advertising", "set_after_accept": None},
        {"cookie_type": "Third Party", "set_after_accept": None},
        {"secure": None},
        {"secure": None, "same_site": "None"},
        {"http_only": None, "cookie_duration": "Session"},
        {"cookie_duration": "2 years"},
        {"category": "analytics", "cookie_duration": "365 days"},
        {"storages": {"localStorage": {}, "sessionStorage": None}},
    ],
)
def test_what_the_scanner_did_not_say_is_no_offence(fields):
    assert findings_of(**fields) == {}


@pytest.mark.parametrize("path", known_packs().values(), ids=lambda path: path.stem)
def test_every_pack_is_named_after_its_id_and_version(path):
    pack = decode_pack(path.read_bytes(), path=str(path))
    assert path.stem == f"{pack.id}-{pack.version}"
    assert pack.rules


@pytest.mark.parametrize("path", known_packs().values(), ids=lambda path: path.stem)
def test_no_rule_calls_a_site_compliant_or_illegal(path):
    assert not re.search(r"complian|legal|lawful|violat", path.read_text("utf-8"), re.IGNORECASE)


@pytest.mark.parametrize(
    ("broken", "offence"),
    [
        (b"{", "truncated"),
        (b"\xff", "rule pack"),
        (b'{"id": "x", "extra": 1, "version": "1", "title": "t", "rules": []}', "extra"),
        (b'{"id": "x", "version": "1", "title": "t", "rules": []}', "$.rules"),
        (b'{"id": "x", "version": "1", "title": "t", "rules": [{"id": "r"}]}', "$.rules[0]"),
    ],
)
def test_a_broken_pack_names_its_file_and_the_offence(broken, offence):
    with pytest.raises(InvalidSettings, match=r"packs/broken\.json") as caught:
        decode_pack(broken, path="packs/broken.json")
    assert offence in str(caught.value)


@pytest.mark.parametrize(
    "when",
    [
        {"type": "eval", "code": "1"},
        {"type": "category", "any_of": ["spyware"]},
        {"type": "missing", "field": "name"},
        {"type": "all", "of": [{"type": "storage_key_present"}]},
        {"type": "before_consent", "really": True},
    ],
)
def test_a_condition_outside_the_vocabulary_is_refused(when):
    pack = msgspec.json.decode(next(iter(known_packs().values())).read_bytes())
    pack["rules"][0]["when"] = when
    with pytest.raises(InvalidSettings, match=r"rules\[0\]"):
        decode_pack(msgspec.json.encode(pack), path="p.json")


def test_a_rule_id_may_stand_in_a_pack_only_once():
    pack = msgspec.json.decode(next(iter(known_packs().values())).read_bytes())
    pack["rules"].append(pack["rules"][0])
    with pytest.raises(InvalidSettings, match=r"appear twice: consent\.advertising"):
        decode_pack(msgspec.json.encode(pack), path="p.json")


@pytest.mark.parametrize("name", ["eu-strict", "", "../eu-baseline", "eu-baseline-1999.1"])
def test_an_unknown_pack_is_answered_with_the_known_ones(name):
    with pytest.raises(InvalidSettings, match=r"known packs: eu-baseline, eu-baseline-2026\.1"):
        load_pack(name)


def write_pack(folder, **changes):
    """A copy of the shipped pack with changes, under the name that its content asks for."""
    pack = {**shipped(), **changes}
    path = folder / f"{pack['id']}-{pack['version']}.json"
    path.write_bytes(msgspec.json.encode(pack))
    return path


def shipped():
    return msgspec.json.decode((PACKS / "eu-baseline-2026.1.json").read_bytes())


def test_a_pack_id_means_its_newest_version(tmp_path):
    for version in ("2026.9", "2026.10", "2025.12"):
        write_pack(tmp_path, version=version)
    assert load_pack("eu-baseline", tmp_path).version == "2026.10"
    assert load_pack("eu-baseline-2025.12", tmp_path).version == "2025.12"


def test_an_operators_packs_stand_beside_the_shipped_ones(tmp_path):
    path = write_pack(tmp_path, id="acme", version="2026.2")
    assert known_packs(tmp_path) == {**known_packs(), "acme-2026.2": path}
    assert load_pack("acme", tmp_path).name == "acme-2026.2"
    assert load_pack("eu-baseline", tmp_path) == PACK
    with pytest.raises(InvalidSettings, match=r"'acme' is not known"):
        load_pack("acme")
    with pytest.raises(InvalidSettings, match=r"known packs: acme, acme-2026\.2, eu-baseline, "):
        load_pack("emca", tmp_path)


def test_a_pack_by_the_name_of_a_shipped_one_is_refused(tmp_path):
    path = write_pack(tmp_path)
    with pytest.raises(InvalidSettings, match=re.escape(f"{path}: eu-baseline-2026.1 is a pack")):
        load_pack("eu-baseline", tmp_path)
    assert "give yours another id" in file_faults(path)[0]
    assert file_faults(PACKS / path.name) == []


def test_a_file_that_is_not_named_after_its_pack_is_refused(tmp_path):
    write_pack(tmp_path, id="acme", version="2026.1").rename(tmp_path / "acme-2026.3.json")
    with pytest.raises(InvalidSettings, match=r"acme-2026\.3\.json: it holds acme-2026\.1, so"):
        load_pack("acme", tmp_path)


def test_a_broken_pack_does_not_stop_another_one(tmp_path):
    write_pack(tmp_path, id="acme", version="2026.1")
    (tmp_path / "acme-2026.2.json").write_bytes(b"{")
    (tmp_path / ".acme-2026.3.json").write_bytes(b"{")  # an editor's
    (tmp_path / "notes.txt").write_bytes(b"not a pack")
    assert load_pack("acme-2026.1", tmp_path).version == "2026.1"
    assert load_pack("eu-baseline", tmp_path) == PACK
    with pytest.raises(InvalidSettings, match=r"acme-2026\.2\.json: Input data was truncated"):
        load_pack("acme", tmp_path)


def test_a_folder_that_is_not_there_is_refused_by_its_name(tmp_path):
    with pytest.raises(InvalidSettings, match=r"rule packs in .*/gone: No such file"):
        load_pack("eu-baseline", tmp_path / "gone")


def test_every_rule_with_a_fault_is_named_at_once():
    pack = shipped()
    pack["version"] = "2026.1-beta"
    pack["rules"][0]["severity"] = "huge"
    del pack["rules"][2]["title"]
    pack["rules"][3]["when"]["of"][0]["any_of"] = []
    pack["rules"][4]["source_url"] = "javascript:alert(1)"
    pack["rules"][5]["title"] = "two\nlines"
    faults = pack_faults(msgspec.json.encode(pack))
    assert [fault.rpartition("at `")[2] for fault in faults] == [
        *("$.version`", "$.rules[0].severity`", "$.rules[2]`"),
        *("$.rules[3].when.of[0].any_of`", "$.rules[4].source_url`", "$.rules[5].title`"),
    ]
    assert "whole numbers joined by dots, such as 2026.1" in faults[0]
    assert not any("regex" in fault for fault in faults)


def test_broken_json_is_found_by_line_and_column():
    assert pack_faults(b'{\n  "id": "a",\n  x}')[0].endswith("at line 3, column 3")
    assert pack_faults(b'{\n  "id": "a"')[0].endswith("at line 2, column 12")


@pytest.mark.parametrize("depth", [21, 400, 100_000])
def test_conditions_nested_too_deep_are_refused(depth):
    pack = shipped()
    pack["rules"][0]["when"] = "@"
    when = '{"type":"all","of":[' * (depth - 1) + '{"type":"session"}' + "]}" * (depth - 1)
    data = msgspec.json.encode(pack).replace(b'"@"', when.encode())
    assert "nested more than 20 deep" in pack_faults(data)[0]


def test_conditions_nested_as_deep_as_allowed_still_judge():
    when = SessionCookie()
    for _ in range(MAX_DEPTH - 1):
        when = All(of=(when,))
    pack = msgspec.structs.replace(PACK, rules=(msgspec.structs.replace(PACK.rules[0], when=when),))
    assert pack_faults(msgspec.json.encode(pack)) == []
    found = assess(decode_scan(SCAN), scan_sha256="", pack=pack, bounds=Bounds(100, 8192))
    assert [finding.count for finding in found.findings] == [6]  # session cookies of this scan


VALIDATOR = Draft202012Validator(json.loads(pages()[DOCS / "contract/rule-pack.schema.json"]))


@pytest.mark.parametrize("path", known_packs().values(), ids=lambda path: path.stem)
def test_a_shipped_pack_is_valid_by_the_published_schema(path):
    VALIDATOR.validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda pack: None,
        lambda pack: pack.update(extra=1),
        lambda pack: pack.update(id="Acme"),
        lambda pack: pack.update(id="acme\n"),
        lambda pack: pack.update(version="2026.01"),
        lambda pack: pack.update(version=2026.1),
        lambda pack: pack.update(rules=[]),
        lambda pack: pack.update(title=""),
        lambda pack: pack["rules"][0].pop("source"),
        lambda pack: pack["rules"][0].pop("source_url"),
        lambda pack: pack["rules"][0].update(scope=None),
        lambda pack: pack["rules"][0].update(severity="critical"),
        lambda pack: pack["rules"][0].update(id="has space"),
        lambda pack: pack["rules"][0].update(source_url="javascript:alert(1)"),
        lambda pack: pack["rules"][0].update(explanation="x" * 2001),
        lambda pack: pack["rules"][0].update(action="bell \x07"),
        lambda pack: pack["rules"][0].update(when={"type": "eval"}),
        lambda pack: pack["rules"][0].update(when={"type": "all", "of": []}),
        lambda pack: pack["rules"][0].update(when={"type": "lifetime_over", "months": 0}),
        lambda pack: pack["rules"][0].update(when={"type": "lifetime_over", "months": 0.5}),
        lambda pack: pack["rules"][0].update(when={"type": "same_site", "any_of": ["None"]}),
        lambda pack: pack["rules"][0].update(when={"type": "storage_key_present"}),
        lambda pack: pack["rules"][0].update(
            when={"type": "any", "of": [{"type": "storage_key_present"}]}
        ),
    ],
)
def test_the_published_schema_and_the_decoder_agree_on_a_pack(change):
    pack = shipped()
    change(pack)
    assert VALIDATOR.is_valid(pack) == (pack_faults(msgspec.json.encode(pack)) == [])


PAGE = (ROOT / "docs/rules.md").read_text("utf-8")


def test_the_example_of_the_page_on_rules_is_a_sound_pack():
    (example,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert decode_pack(example.encode(), path="docs/rules.md").name == "acme-2026.1"
    VALIDATOR.validate(json.loads(example))


def test_the_page_on_rules_names_every_word_of_the_vocabulary():
    words = {model.__struct_config__.tag for model in get_args(Condition | StorageKeyPresent)}
    told = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE, re.MULTILINE)
    assert words == {word for cell in told for word in re.findall(r"`([a-z_]+)`", cell)} - {"type"}


def test_since_names_the_first_version_that_had_a_rule(tmp_path, monkeypatch):
    pack = shipped()
    write_pack(tmp_path, version="2025.1", rules=pack["rules"][:2])
    write_pack(tmp_path, version="2025.10", rules=pack["rules"][1:3])
    monkeypatch.setattr(rule_packs, "PACKS", tmp_path)
    rows = re.findall(r"^\| `(\S+)` .* (\S+) \|$", rules_page(ROOT / "docs/rules.md"), re.MULTILINE)
    assert [row for row in rows if row[0].count(".")] == [
        ("consent.third-party-before-choice", "2025.1"),
        ("consent.analytics-before-choice", "2025.10"),
    ]


def test_the_page_on_rules_lists_every_rule_of_the_newest_pack():
    page = (ROOT / "docs/rules.md").read_text("utf-8")
    assert f"## {PACK.id} {PACK.version}" in page
    for rule in PACK.rules:
        assert f"| `{rule.id}` | {rule.severity} | {rule.title} |" in page
