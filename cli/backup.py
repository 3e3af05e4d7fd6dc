"""``backup`` and ``restore``: a one-machine installation, copied while it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec
import typer
from rich.console import Console

from cli.output import print_json
from cli.records import AsJson
from schemas.errors import InvalidSettings
from schemas.settings import Settings, load_settings

ELSEWHERE = "see docs/backup.md for what copies it instead"


def backup_command(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the SQLite ledger and the folder of artifacts, while the service works.

    Keys are not copied: keep encryption.key and signing.key in another place.
    """
    from store.backup import take_backup
    from tasks.wiring import utc_now

    settings = load_settings()
    ledger, artifacts = _places(settings)
    if not ledger.exists():
        raise InvalidSettings(f"there is no ledger to back up: no file {ledger}")
    newest = next(iter(_key_digests(settings)), "")
    manifest = take_backup(ledger, artifacts, folder, encryption_key=newest, now=utc_now())
    if as_json:
        print_json(msgspec.to_builtins(manifest))
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(
        f"{folder}: the ledger (schema {manifest.revision}) and {manifest.artifacts:,} artifacts, "
        f"{manifest.bytes:,} bytes."
    )
    if manifest.missing:
        console.print(
            f"{manifest.missing:,} ready reports had no artifact to copy: scanherald audit names "
            "them, unless they were deleted meanwhile."
        )
    console.print("Keys are not in it: keep encryption.key and signing.key in another place.")


def restore_command(
    folder: Annotated[Path, typer.Argument(help="A folder that `scanherald backup` made.")],
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of a ledger that is gone.

    Stop the service first.  Replaces nothing: a ledger that is there has to be
    moved away.  Exit status 1 where something is missing that the ledger knows of.
    """
    from store.backup import first_unrecorded, read_manifest, restore_backup

    settings = load_settings()
    ledger, artifacts = _places(settings)
    manifest = read_manifest(folder)
    fits = manifest.encryption_key in ("", *_key_digests(settings))
    missing = restore_backup(folder, ledger, artifacts)
    since = first_unrecorded(ledger) or manifest.taken_at.isoformat()[:19]
    if as_json:
        print_json(
            {
                **msgspec.to_builtins(manifest),
                "missing": missing,
                "encryption_key_fits": fits,
                "replay_from": since,
            }
        )
    else:
        console = Console(emoji=False, highlight=False, soft_wrap=True)
        taken_at = manifest.taken_at.isoformat()[:19]
        console.print(f"Restored {folder}, taken at {taken_at} UTC, into {settings.data_dir}.")
        _say_what_is_next(console, since, missing, fits=fits)
    if missing or not fits:
        raise typer.Exit(1)


def _say_what_is_next(console: Console, since: str, missing: int, *, fits: bool) -> None:
    if missing:
        console.print(
            f"{missing:,} reports have lost their artifact. scanherald audit names them; "
            "scanherald cleanup orphans --lost, then scanherald replay make them again."
        )
    if not fits:
        console.print(
            "The encryption key here is not the one that sealed subscribers' addresses: put "
            "encryption.key or SCANHERALD_ENCRYPTION_KEYS back before you start; see docs/keys.md."
        )
    console.print(
        f"Next: start it, scanherald audit, and scanherald replay --from-stream --from {since} "
        "--only reports,notify for what the backup does not know."
    )


def _places(settings: Settings) -> tuple[Path, Path]:
    """The ledger's file and the artifacts' folder.  Raises InvalidSettings for any other store."""
    from listener.health import sqlite_file

    ledger = sqlite_file(settings)
    if ledger is None:
        raise InvalidSettings(f"the ledger is in PostgreSQL: {ELSEWHERE}")
    url = urlsplit(settings.artifact_store_url)
    if url.scheme != "file":
        raise InvalidSettings(f"the artifacts are in a bucket: {ELSEWHERE}")
    return ledger, Path(unquote(url.path))


def _key_digests(settings: Settings) -> list[str]:
    """Which encryption keys are in use, the newest first; none where there is none yet."""
    from store.secrets import SecretBox, known_keys

    keys, origin = known_keys(settings.encryption_keys, settings.data_dir)
    return [SecretBox([key], origin).digest("backup") for key in keys]
