"""The manifest of an evidence bundle: which scan, which files by size and SHA-256, whose key.

It is the one thing in a bundle that is signed, and everything else is signed
through it.  ``store.bundles`` makes and checks it; an auditor reads it by eye,
so it is indented JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from schemas.reports import Format

BUNDLE_VERSION: Final = "1.0"

README = "README.txt"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
SCAN = "scan.json"

BUNDLE_REPORTS = {
    Format.PDF: "report.pdf",
    Format.HTML: "report.html",
    Format.JSON: "report.json",
    Format.CSV: "report.csv",
    Format.XLSX: "report.xlsx",
}
"""The artifacts of a bundle.  Fixed by its version: a format that comes later makes a new one."""

SIGNED_FILES = tuple(sorted((README, SCAN, *BUNDLE_REPORTS.values())))
"""What the manifest lists, in its order."""

BUNDLE_FILES = tuple(sorted((*SIGNED_FILES, MANIFEST, SIGNATURE)))
"""Every entry of a bundle, in the order of the archive: none may be missing, none more be there."""

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signed file of a bundle."""

    name: str
    sha256: Sha256
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the signer vouches for.  No clock in it: the same scan and key give the same bytes."""

    bundle_version: Literal["1.0"]
    scan_id: str
    domain: str
    finished_at: datetime | None
    """When the scan ended, as its scanner said."""
    rule_pack: str
    rule_pack_version: str
    language: str
    content_sha256: Sha256
    """Digest of the report's canonical content, as every artifact prints it."""
    files: tuple[BundleFile, ...]
    """``SIGNED_FILES``, in their order."""
    public_key: str
    """The signer's Ed25519 key, base64 of its SubjectPublicKeyInfo: the one line of its PEM."""


_encoder = msgspec.json.Encoder(order="deterministic")


def encode_manifest(manifest: Manifest) -> bytes:
    """The one way a manifest is written: indented JSON in UTF-8 with a final line feed."""
    return msgspec.json.format(_encoder.encode(manifest), indent=2) + b"\n"
