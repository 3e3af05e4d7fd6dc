import re
from pathlib import Path

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import PACKS, decode_pack, known_packs, load_pack
from schemas.errors import InvalidSettings
from schemas.reports import Severity
from schemas.scans import Scan

ROOT = Path(__file__).parents[2]
PACK = load_pack("eu-baseline")

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
        (b'{"id": "x", "version": "1", "title": "t", "rules": [], "extra": 1}', "extra"),
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


def test_a_pack_id_means_its_newest_version(tmp_path):
    pack = msgspec.json.decode((PACKS / "eu-baseline-2026.1.json").read_bytes())
    for version in ("2026.9", "2026.10", "2025.12"):
        pack["version"] = version
        (tmp_path / f"eu-baseline-{version}.json").write_bytes(msgspec.json.encode(pack))
    assert load_pack("eu-baseline", tmp_path).version == "2026.10"
    assert load_pack("eu-baseline-2025.12", tmp_path).version == "2025.12"


def test_the_page_on_rules_lists_every_rule_of_the_newest_pack():
    page = (ROOT / "docs/rules.md").read_text("utf-8")
    assert f"## {PACK.id} {PACK.version}" in page
    for rule in PACK.rules:
        assert f"| `{rule.id}` | {rule.severity} | {rule.title} |" in page
