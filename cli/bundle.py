"""``bundle``, ``verify``, ``signing-key``: evidence that an auditor can check without us.

``verify`` needs the bundle alone: no settings, no ledger, no network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from cli.output import cell, print_json
from cli.records import AsJson
from cli.settings import load_settings
from schemas.errors import InvalidBundle, InvalidSettings, PermanentError

if TYPE_CHECKING:
    from schemas.settings import Settings
    from store.bundles import Verified
    from store.signing_keys import PublicKey, SigningKey


def bundle_command(
    scan: Annotated[str, typer.Argument(help="Scan id.")],
    language: Annotated[
        str | None, typer.Option(help="Language of the reports; that of the scan's run by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file; <scan id>.<language>.bundle.zip by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a scan and its reports into a signed zip that anyone can check, offline, for years."""
    from tasks.evidence import make_bundle
    from tasks.logs import configure_logs
    from tasks.wiring import wire

    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "WARNING"}))  # what is said below
    key = _signing_key(settings)
    if output is not None:
        _refuse_existing(output, force=force)
    parts = wire(settings)
    parts.ledger.migrate()
    try:
        made = make_bundle(parts, scan, key, language)
    finally:
        parts.close()
    path = output or Path(f"{made.manifest.scan_id}.{made.manifest.language}.bundle.zip")
    _refuse_existing(path, force=force)
    _write(path, made.data)
    said = {
        "path": str(path),
        "scan_id": made.manifest.scan_id,
        "domain": made.manifest.domain,
        "language": made.manifest.language,
        "size_bytes": len(made.data),
        "sha256": hashlib.sha256(made.data).hexdigest(),
        "signer": key.public.fingerprint,
    }
    _print(said, as_json=as_json)


def verify_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's file.")],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBLIC_KEY",
            help="The signer's public key, as the signer gave it to you: a PEM file, or base64.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle to the last bit, offline.  Exit status: 0 if it is whole, 1 if not."""
    from store.bundles import verify_bundle

    trusted = None if key is None else _read_public(key)
    try:
        verified = verify_bundle(_read(bundle), trusted)
    except PermanentError as error:  # not valid, or not to be read
        if not as_json:
            if isinstance(error, InvalidBundle):
                raise InvalidBundle(f"{bundle} is not valid: {error}") from error
            raise
        print_json({"valid": False, "error": str(error)})
        raise typer.Exit(1) from error
    if as_json:
        print_json(
            {
                "valid": True,
                "signer": verified.signer.fingerprint,
                "signer_proven": trusted is not None,
                "manifest": msgspec.to_builtins(verified.manifest),
            }
        )
    else:
        _print_verified(bundle, verified, proven=trusted is not None)


def signing_key_command(as_json: AsJson = False) -> None:
    """Print the public key that checks our bundles, for auditors to have beforehand.

    Standard output is a PEM file.  The private key is made if there is none yet.
    """
    public = _signing_key(load_settings()).public
    if as_json:
        print_json({"public_key": public.text, "fingerprint": public.fingerprint})
        return
    typer.echo(public.pem, nl=False)
    typer.echo(f"fingerprint (SHA-256): {public.fingerprint}", err=True)


def _signing_key(settings: Settings) -> SigningKey:
    from store.signing_keys import open_signing_key

    setting = settings.signing_key
    return open_signing_key(setting.get_secret_value() if setting else None, settings.data_dir)


def _read_public(given: str) -> PublicKey:
    """A public key from base64, or from the file of that name."""
    from store.signing_keys import read_public_key

    try:
        return read_public_key(given)
    except ValueError:
        text = _read(Path(given), "--key is no public key in base64, and as a file").decode(
            "utf-8", "replace"
        )
    try:
        return read_public_key(text)
    except ValueError as error:
        raise InvalidSettings(f"--key: {given} holds {error}") from error


def _read(path: Path, what: str = "") -> bytes:
    from store.bundles import BUNDLE_BYTES

    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_BYTES + 1)  # one more than is taken; never an endless device
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PermanentError(f"{what} cannot read {path}: {reason}".strip()) from error


def _refuse_existing(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise InvalidSettings(f"{path} is there already; --force replaces it")


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename: a reader finds the whole bundle or none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise PermanentError(f"cannot write {path}: {error.strerror}") from error


def _print_verified(path: Path, verified: Verified, *, proven: bool) -> None:
    manifest = verified.manifest
    _print(
        {
            "bundle": f"{path} is whole: {len(manifest.files)} files, each as it was signed",
            "scan": manifest.scan_id,
            "domain": manifest.domain,
            "finished": manifest.finished_at.isoformat() if manifest.finished_at else None,
            "rule pack": f"{manifest.rule_pack} {manifest.rule_pack_version}",
            "language": manifest.language,
            "content": manifest.content_sha256,
            "signer": verified.signer.fingerprint,
        },
        as_json=False,
    )
    if proven:
        typer.echo("Signed by the owner of the key that you gave.")
    else:
        typer.echo(
            "The signature is valid for the key IN the bundle, and anyone can make such a bundle. "
            "Who signed it is proved only with --key and the public key that the signer gave you."
        )


def _print(said: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(said)
        return
    width = max(map(len, said)) + 2
    console = Console(highlight=False, emoji=False)
    for name, value in said.items():
        console.print(f"{name.replace('_', ' '):<{width}}{cell(value)}", soft_wrap=True)
