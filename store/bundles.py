"""An evidence bundle: a scan and its reports, signed, in one zip that is checked without us.

Pure: bytes in, bytes out, no ledger and no clock; the same scan and key give
the same bundle.  Whoever verifies one distrusts all of it until the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from schemas.bundles import (
    BUNDLE_FILES,
    BUNDLE_REPORTS,
    BUNDLE_VERSION,
    MANIFEST,
    README,
    SCAN,
    SIGNATURE,
    SIGNED_FILES,
    BundleFile,
    Manifest,
    encode_manifest,
)
from schemas.errors import InvalidBundle
from schemas.reports import Format
from store.plain_zip import check_zip, read_entries, write_zip
from store.signing_keys import PublicKey, SigningKey, read_public_key

BUNDLE_BYTES = 512 * 1024 * 1024
"""Largest bundle.  The largest scan that is taken, in five formats, is a fraction of it."""

README_TEXT = Path(__file__).with_name("bundle_readme.txt")


class _Identity(msgspec.Struct, frozen=True):
    scan_id: str
    domain: str
    finished_at: datetime | None
    scan_sha256: str
    rule_pack: str
    rule_pack_version: str


class _Report(msgspec.Struct, frozen=True):
    """What a bundle needs of ``report.json``, so that later versions of it are read too."""

    language: str
    identity: _Identity
    content_sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was just made: the zip archive, and what its manifest says."""

    data: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that is whole.  Who signed is proved only if the verifier knew the key before."""

    manifest: Manifest
    signer: PublicKey


def build_bundle(scan: bytes, artifacts: Mapping[Format, bytes], key: SigningKey) -> Bundle:
    """The bundle of a scan's original bytes and its artifacts in ``BUNDLE_REPORTS``.

    Raises InvalidBundle where it would not verify: the artifacts are of another
    scan, or it would be too large.
    """
    files = {README: README_TEXT.read_bytes(), SCAN: scan}
    files |= {name: artifacts[format] for format, name in BUNDLE_REPORTS.items()}
    report = _decode_report(files[BUNDLE_REPORTS[Format.JSON]])
    manifest = encode_manifest(_manifest(report, files, key.public))
    files |= {MANIFEST: manifest, SIGNATURE: key.sign(manifest)}
    data = write_zip({name: files[name] for name in BUNDLE_FILES})
    return Bundle(data, verify_bundle(data, key.public).manifest)


def verify_bundle(bundle: bytes, trusted: PublicKey | None = None) -> Verified:
    """Check a bundle to the last bit; with ``trusted``, that its owner signed it.

    Raises InvalidBundle that says what is wrong with which file.
    """
    if len(bundle) > BUNDLE_BYTES:
        raise InvalidBundle(f"larger than {BUNDLE_BYTES} bytes, which no bundle is")
    entries = read_entries(bundle, at_most=len(BUNDLE_FILES))
    _check_names(entries)
    manifest = _decode_manifest(entries[MANIFEST])
    signer = _check_signature(manifest, entries, trusted)
    _check_files(manifest, entries)
    _check_report(manifest, entries)
    check_zip(bundle, {name: entries[name] for name in BUNDLE_FILES})
    return Verified(manifest, signer)


def content_digest(report: bytes) -> str:
    """SHA-256 (hex) of a JSON report's content, from its bytes alone.

    The same as ``canonical_digest`` of the Report, and still right where a later
    version of the model no longer reads it.
    """
    before, mark, after = report.rpartition(b'"content_sha256":"')
    _, quote, end = after.partition(b'"')
    return hashlib.sha256(before + mark + quote + end.rstrip(b"\n")).hexdigest()


def _manifest(report: _Report, files: Mapping[str, bytes], signer: PublicKey) -> Manifest:
    identity = report.identity
    return Manifest(
        bundle_version=BUNDLE_VERSION,
        scan_id=identity.scan_id,
        domain=identity.domain,
        finished_at=identity.finished_at,
        rule_pack=identity.rule_pack,
        rule_pack_version=identity.rule_pack_version,
        language=report.language,
        content_sha256=report.content_sha256,
        files=tuple(
            BundleFile(name=name, sha256=_sha256(files[name]), size_bytes=len(files[name]))
            for name in SIGNED_FILES
        ),
        public_key=signer.text,
    )


def _check_names(entries: Mapping[str, bytes]) -> None:
    for name in entries:
        if name not in BUNDLE_FILES:
            raise InvalidBundle(f"{name!r} does not belong into a bundle")
    missing = [name for name in BUNDLE_FILES if name not in entries]
    if missing:
        raise InvalidBundle(f"missing: {', '.join(missing)}")


def _check_signature(
    manifest: Manifest, entries: Mapping[str, bytes], trusted: PublicKey | None
) -> PublicKey:
    try:
        signer = read_public_key(manifest.public_key)
    except ValueError as error:
        raise InvalidBundle(f"{MANIFEST}: its public_key is unusable: {error}") from error
    if not signer.verifies(entries[SIGNATURE], entries[MANIFEST]):
        raise InvalidBundle(
            f"{SIGNATURE} is no signature of {MANIFEST} by the key in it: one of them was changed"
        )
    if trusted is not None and trusted != signer:
        raise InvalidBundle(
            f"signed by another key: {signer.fingerprint}, not by yours: {trusted.fingerprint}"
        )
    return signer


def _check_files(manifest: Manifest, entries: Mapping[str, bytes]) -> None:
    if tuple(file.name for file in manifest.files) != SIGNED_FILES:
        raise InvalidBundle(f"{MANIFEST} does not list the files of a bundle")
    for file in manifest.files:
        content = entries[file.name]
        if (file.size_bytes, file.sha256) != (len(content), _sha256(content)):
            raise InvalidBundle(f"{file.name} is not the file that was signed: its SHA-256 differs")


def _check_report(manifest: Manifest, entries: Mapping[str, bytes]) -> None:
    """Hold the files against each other: a signer may err, or mix up two scans."""
    name = BUNDLE_REPORTS[Format.JSON]
    report = _decode_report(entries[name])
    if report.content_sha256 != content_digest(entries[name]):
        raise InvalidBundle(f"{name}: its content_sha256 is not that of its content")
    if report.identity.scan_sha256 != _sha256(entries[SCAN]):
        raise InvalidBundle(f"{SCAN} is not the scan that {name} is about: its SHA-256 differs")
    told = _manifest(report, entries, read_public_key(manifest.public_key))
    if encode_manifest(told) != entries[MANIFEST]:
        raise InvalidBundle(f"{MANIFEST} does not say what {name} says")


def _decode_manifest(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(
            f"{MANIFEST} is no manifest of version {BUNDLE_VERSION}: {error}"
        ) from error


def _decode_report(data: bytes) -> _Report:
    try:
        return msgspec.json.decode(data, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"{BUNDLE_REPORTS[Format.JSON]} is no report: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
