"""The evidence bundle: what is in it, and that nothing in it can change unseen."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.bundles import BUNDLE_FILES, BUNDLE_REPORTS, MANIFEST, SIGNATURE, Manifest
from schemas.errors import InvalidBundle
from schemas.reports import Format
from store import bundles
from store.bundles import build_bundle, verify_bundle
from store.plain_zip import read_entries, write_zip
from store.signing_keys import SigningKey

GOLDEN = Path(__file__).parents[1] / "data" / "bundle-1.0.zip"
"""Made by the first release that made bundles, with ``KEY``: it verifies for ever."""

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(b"o" * 32))

SCAN = b'{"scan_id": "3176b0cd-199b-5ec6-b280-ec5c6e92338a", "domain": "shop.example"}\n'


def report(**changes: Any) -> bytes:
    """The JSON report on ``SCAN``, as far as a bundle knows one; its digest is right."""
    identity = {
        "scan_id": "3176b0cd-199b-5ec6-b280-ec5c6e92338a",
        "domain": "shop.example",
        "finished_at": "2026-03-04T12:00:00Z",
        "scan_sha256": hashlib.sha256(SCAN).hexdigest(),
        "rule_pack": "eu-baseline",
        "rule_pack_version": "2026.1",
    }
    content = {"schema_version": "1.0", "language": "en", "identity": {**identity, **changes}}
    digest = hashlib.sha256(msgspec.json.encode({**content, "content_sha256": ""})).hexdigest()
    return msgspec.json.encode({**content, "content_sha256": digest}) + b"\n"


def artifacts(**changes: Any) -> dict[Format, bytes]:
    made = {name: f"stands for the {name}\n".encode() for name in BUNDLE_REPORTS}
    return {**made, Format.JSON: report(**changes)}


def bundle() -> bytes:
    return build_bundle(SCAN, artifacts(), KEY).data


def entries() -> dict[str, bytes]:
    return read_entries(bundle(), at_most=9)


def resigned(changed: dict[str, bytes], key: SigningKey = KEY) -> bytes:
    """A bundle by somebody who holds the key and writes what they like."""
    return write_zip(changed | {SIGNATURE: key.sign(changed[MANIFEST])})


def test_a_bundle_holds_the_scan_its_reports_and_who_signed_them() -> None:
    made = build_bundle(SCAN, artifacts(), KEY)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        assert tuple(archive.namelist()) == BUNDLE_FILES
        assert archive.read("scan.json") == SCAN
        assert archive.read("report.json") == report()
        assert archive.read("report.xlsx") == b"stands for the xlsx\n"
        assert b"openssl pkeyutl -verify" in archive.read("README.txt")
        manifest = msgspec.json.decode(archive.read(MANIFEST))
    listed = {file["name"]: (file["size_bytes"], file["sha256"]) for file in manifest["files"]}
    assert listed["scan.json"] == (len(SCAN), hashlib.sha256(SCAN).hexdigest())
    assert len(listed) == 7
    assert manifest["domain"] == "shop.example"
    assert manifest["finished_at"] == "2026-03-04T12:00:00Z"
    assert (manifest["rule_pack"], manifest["rule_pack_version"]) == ("eu-baseline", "2026.1")
    assert manifest["public_key"] == KEY.public.text
    assert msgspec.convert(manifest, Manifest) == made.manifest


def test_a_whole_bundle_says_who_signed_it() -> None:
    assert verify_bundle(bundle()).signer == KEY.public
    assert verify_bundle(bundle(), KEY.public).manifest.scan_id.startswith("3176b0cd")


def test_a_bundle_by_another_key_is_no_proof() -> None:
    with pytest.raises(InvalidBundle, match=f"signed by another key: {KEY.public.fingerprint}"):
        verify_bundle(bundle(), OTHER.public)


def test_the_same_scan_and_key_give_the_same_bytes() -> None:
    assert bundle() == bundle()
    assert build_bundle(SCAN, artifacts(), OTHER).data != bundle()


def test_a_bundle_of_the_first_release_verifies_for_ever() -> None:
    assert verify_bundle(GOLDEN.read_bytes(), KEY.public).manifest.language == "en"


def test_the_format_is_still_that_of_the_first_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readme = tmp_path / "README.txt"  # it may be worded anew, no version hangs on it
    readme.write_bytes(read_entries(GOLDEN.read_bytes(), at_most=9)["README.txt"])
    monkeypatch.setattr(bundles, "README_TEXT", readme)
    assert bundle() == GOLDEN.read_bytes()


def test_one_flipped_bit_anywhere_is_noticed() -> None:
    """Every bit around the files' contents and of the signature, and one bit of every byte else."""
    whole = bundle()
    quiet = bytearray(len(whole))  # 1: inside a file's content
    for name, content in entries().items():
        if name != SIGNATURE:
            start = whole.index(content)
            quiet[start : start + len(content)] = b"\1" * len(content)
    for index, inside in enumerate(quiet):
        for bit in (index % 8,) if inside else range(8):
            changed = bytearray(whole)
            changed[index] ^= 1 << bit
            with pytest.raises(InvalidBundle):
                verify_bundle(bytes(changed))


@pytest.mark.full
def test_each_flipped_bit_is_noticed() -> None:
    whole = bundle()
    for position in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidBundle):
            verify_bundle(bytes(changed), KEY.public)


@given(st.data())
def test_bytes_changed_taken_away_or_put_in_are_noticed(data: st.DataObject) -> None:
    whole = bundle()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 80)))
    changed = whole[:start] + data.draw(st.binary(max_size=80)) + whole[end:]
    if changed == whole:
        return
    with pytest.raises(InvalidBundle):
        verify_bundle(changed)


@given(st.binary(max_size=2000))
def test_whatever_claims_to_be_a_file_of_a_bundle_breaks_nothing(data: bytes) -> None:
    whole = entries()
    for name in BUNDLE_FILES:
        with pytest.raises(InvalidBundle):
            verify_bundle(write_zip(whole | {name: data}))
    with pytest.raises(InvalidBundle):
        verify_bundle(resigned(whole | {MANIFEST: data}))
    with pytest.raises(InvalidBundle):
        build_bundle(SCAN, artifacts() | {Format.JSON: data}, KEY)


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(InvalidBundle, match=f"^missing: {name}$"):
        verify_bundle(write_zip({key: data for key, data in entries().items() if key != name}))


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_changed_file_is_named(name: str) -> None:
    with pytest.raises(InvalidBundle, match=name):
        verify_bundle(write_zip({**entries(), name: entries()[name] + b" "}))


@pytest.mark.parametrize(
    "name",
    [
        "extra.txt",
        "/etc/passwd",
        "../report.pdf",
        "x/report.pdf",
        "report.pdf/",
        "C:\\report.pdf",
        "REPORT.PDF",
        "report.pdf\0",
        "",
        "x" * 64,
    ],
)
def test_a_file_of_another_name_is_refused(name: str) -> None:
    whole = entries()
    for changed in (
        {**whole, name: b"hello"},
        {name if key == "report.pdf" else key: data for key, data in whole.items()},
    ):
        with pytest.raises(InvalidBundle, match=r"does not belong|more than 9 files"):
            verify_bundle(write_zip(changed))


def test_files_in_another_order_are_refused() -> None:
    with pytest.raises(InvalidBundle, match="not as the signer wrote it"):
        verify_bundle(write_zip(dict(reversed(entries().items()))))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_bundle_packed_again_by_another_program_is_refused(compression: int) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in entries().items():
            archive.writestr(name, content)
    with pytest.raises(InvalidBundle, match="compressed, encrypted"):
        verify_bundle(target.getvalue())


def test_what_announces_more_than_is_there_is_refused() -> None:
    whole = bytearray(bundle())
    whole[22:26] = b"\xff\xff\xff\xff"  # the size of the first file
    with pytest.raises(InvalidBundle, match="4294967295 bytes are announced"):
        verify_bundle(bytes(whole))


def test_a_bundle_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "BUNDLE_BYTES", 1000)
    with pytest.raises(InvalidBundle, match="larger than 1000 bytes"):
        verify_bundle(b"x" * 1001)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b'"domain": "shop', b'"domain": "ship', "does not say what report.json says"),
        (b'"bundle_version": "1.0"', b'"bundle_version": "2.0"', "no manifest of version 1.0"),
        (b'"language"', b'"lang"', "no manifest of version 1.0"),
        (b'"scan_id"', b'"more": 1, "scan_id"', "no manifest of version 1.0"),
        (b'"scan_id"', b'"scan_id": "a", "scan_id"', "does not say what report.json says"),
        (b'"report.pdf"', b'"report.pdg"', "does not list the files"),
        (b"\n}", b"\n }", "does not say what report.json says"),
        (b'"MCow', b'"mCow', "public_key is unusable"),
    ],
)
def test_a_signed_manifest_that_says_something_else_is_refused(
    before: bytes, after: bytes, words: str
) -> None:
    whole = entries()
    changed = whole[MANIFEST].replace(before, after)
    assert changed != whole[MANIFEST]
    with pytest.raises(InvalidBundle, match=words):
        verify_bundle(resigned(whole | {MANIFEST: changed}))


def test_a_signature_by_another_key_than_the_named_one_is_refused() -> None:
    with pytest.raises(InvalidBundle, match=r"no signature of manifest\.json by the key in it"):
        verify_bundle(resigned(entries(), OTHER))


def test_a_scan_that_the_report_is_not_about_is_refused() -> None:
    with pytest.raises(InvalidBundle, match=r"not the scan that report\.json is about"):
        build_bundle(SCAN + b" ", artifacts(), KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"eu-baseline", b"us-baseline"),
        lambda text: text.replace(b"}\n", b"} \n"),
        lambda text: text.replace(b'"language"', b'"content_sha256":"","language"'),
    ],
)
def test_a_report_whose_own_digest_is_wrong_is_refused(change: Callable[[bytes], bytes]) -> None:
    made = artifacts()
    with pytest.raises(InvalidBundle, match="its content_sha256 is not that of its content"):
        build_bundle(SCAN, made | {Format.JSON: change(made[Format.JSON])}, KEY)


@pytest.mark.parametrize("data", [b"", b"[]", b'"', b"\xff", b"[" * 100_000])
def test_a_report_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidBundle, match=r"report\.json is no report"):
        build_bundle(SCAN, artifacts() | {Format.JSON: data}, KEY)


@pytest.mark.parametrize("domain", ['"name": "', "\u202eelpmaxe", "ex\u2028ample", "\\u0000", "ä"])
def test_a_hostile_domain_stays_inside_its_quotes(domain: str) -> None:
    made = build_bundle(SCAN, artifacts(domain=domain), KEY)
    assert verify_bundle(made.data).manifest.domain == domain
    manifest = read_entries(made.data, at_most=9)[MANIFEST]
    assert manifest.count(b'"name":') == 7, "step 3 of the README finds the files by it"
