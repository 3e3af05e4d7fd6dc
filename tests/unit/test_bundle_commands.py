"""``bundle``, ``verify`` and ``signing-key`` as an operator and an auditor run them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from cli.main import app
from schemas.errors import InvalidBundle, InvalidSettings, NotFound, PermanentError
from store.bundles import verify_bundle
from store.signing_keys import open_signing_key, read_public_key

GOLDEN = Path(__file__).parents[1] / "data" / "bundle-1.0.zip"
SIGNER = verify_bundle(GOLDEN.read_bytes()).signer
SCAN_ID = "00000000-0000-0000-0000-0000000a0001"


@pytest.fixture
def run(
    make_parts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Run a command in an empty folder, with the environment of its own ledger."""
    parts = make_parts()
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object, status: int = 0) -> Result:
        words = [str(argument) for argument in arguments]
        with structlog.testing.capture_logs():
            result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    run.parts = parts  # type: ignore[attr-defined]
    return run


@pytest.fixture
def recorded(run: Any, record: Any, make_scan: Any) -> None:
    record(run.parts, make_scan())


def test_a_bundle_lands_in_this_folder_and_verifies(recorded: None, run: Any) -> None:
    said = run("bundle", SCAN_ID).stdout
    path = Path(f"{SCAN_ID}.en.bundle.zip")
    assert [found.name for found in Path.cwd().iterdir()] == [path.name]
    public = open_signing_key(None, run.parts.settings.data_dir).public
    for part in (path.name, hashlib.sha256(path.read_bytes()).hexdigest(), public.fingerprint):
        assert part in said
    assert path.stat().st_mode & stat.S_IRGRP or os.umask(0o022) == 0o077
    assert "Signed by the owner of the key" in run("verify", path, "--key", public.text).stdout


def test_json_says_where_the_bundle_is_and_who_signed_it(recorded: None, run: Any) -> None:
    answer = json.loads(run("bundle", SCAN_ID, "--language", "de", "--json").stdout)
    data = Path(answer["path"]).read_bytes()
    assert answer == {
        "path": f"{SCAN_ID}.de.bundle.zip",
        "scan_id": SCAN_ID,
        "domain": "shop.example",
        "language": "de",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "signer": json.loads(run("signing-key", "--json").stdout)["fingerprint"],
    }


def test_a_file_that_is_there_is_replaced_by_force_alone(recorded: None, run: Any) -> None:
    target = Path("evidence.zip")
    target.write_bytes(b"precious")
    with pytest.raises(InvalidSettings, match=r"evidence\.zip is there already; --force"):
        run("bundle", SCAN_ID, "--output", target)
    assert target.read_bytes() == b"precious"
    run("bundle", SCAN_ID, "--output", target, "--force")
    assert [found.name for found in Path.cwd().iterdir()] == ["evidence.zip"]
    run("verify", target)
    Path(f"{SCAN_ID}.en.bundle.zip").touch()
    with pytest.raises(InvalidSettings, match="--force"):
        run("bundle", SCAN_ID)


def test_a_bundle_that_cannot_be_written_leaves_nothing(recorded: None, run: Any) -> None:
    with pytest.raises(PermanentError, match=r"cannot write gone/evidence\.zip: No such file"):
        run("bundle", SCAN_ID, "--output", "gone/evidence.zip")
    Path("folder").mkdir()
    with pytest.raises(PermanentError, match="cannot write folder: Is a directory"):
        run("bundle", SCAN_ID, "--output", "folder", "--force")
    assert [found.name for found in Path.cwd().iterdir()] == ["folder"]


def test_an_unknown_scan_is_told(run: Any) -> None:
    with pytest.raises(NotFound, match="no scan nowhere"):
        run("bundle", "nowhere")


def test_the_signing_key_of_the_settings_signs(
    recorded: None, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANHERALD_SIGNING_KEY", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    assert json.loads(run("bundle", SCAN_ID, "--json").stdout)["signer"] == SIGNER.fingerprint
    assert not (run.parts.settings.data_dir / "signing.key").exists()


def test_the_public_key_is_printed_as_a_file_for_auditors(run: Any) -> None:
    said = run("signing-key")
    answer = json.loads(run("signing-key", "--json").stdout)
    assert read_public_key(said.stdout).text == answer["public_key"]
    assert said.stdout.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert answer["fingerprint"] in said.stderr
    assert "PRIVATE" not in said.output


def test_without_a_key_it_is_said_that_nobody_is_proved(run: Any) -> None:
    said = run("verify", GOLDEN).stdout
    assert "valid for the key IN the bundle" in said
    assert "proved only with --key" in said
    assert SIGNER.fingerprint in said
    assert "shop.example" in said


@pytest.mark.parametrize("form", ["base64", "pem"])
def test_with_a_key_the_signer_is_proved(form: str, run: Any) -> None:
    Path("signer.pem").write_text(SIGNER.pem)
    answer = json.loads(
        run(
            "verify", GOLDEN, "--key", SIGNER.text if form == "base64" else "signer.pem", "--json"
        ).stdout
    )
    assert (answer["valid"], answer["signer_proven"]) == (True, True)
    assert answer["signer"] == SIGNER.fingerprint
    assert answer["manifest"]["domain"] == "shop.example"
    assert json.loads(run("verify", GOLDEN, "--json").stdout)["signer_proven"] is False


def test_another_key_is_a_failure(run: Any) -> None:
    other = json.loads(run("signing-key", "--json").stdout)["public_key"]
    with pytest.raises(InvalidBundle, match="is not valid: signed by another key"):
        run("verify", GOLDEN, "--key", other)
    answer = json.loads(run("verify", GOLDEN, "--key", other, "--json", status=1).stdout)
    assert answer["valid"] is False
    assert "signed by another key" in answer["error"]


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ("gone.pem", PermanentError, "no public key in base64, and as a file cannot read gone.pem"),
        ("x" * 5000, PermanentError, "File name too long"),
        ("a\0b", PermanentError, "null byte"),
        ("note.txt", InvalidSettings, "--key: note.txt holds no public key"),
    ],
)
def test_a_key_that_is_none_is_explained(
    key: str, error: type[Exception], words: str, run: Any
) -> None:
    Path("note.txt").write_bytes(b"\xffthe key is in the safe")
    with pytest.raises(error, match=words):
        run("verify", GOLDEN, "--key", key)


def test_a_bundle_that_cannot_be_read_is_told(run: Any) -> None:
    with pytest.raises(PermanentError, match=r"cannot read gone\.zip: No such file"):
        run("verify", "gone.zip")
    answer = json.loads(run("verify", "gone.zip", "--json", status=1).stdout)
    assert answer == {"valid": False, "error": "cannot read gone.zip: No such file or directory"}


def test_verifying_needs_neither_settings_nor_what_they_lead_to(tmp_path: Path) -> None:
    """A program that verifies alone, in an environment that nothing else could start in."""
    program = (
        "import sys; from cli.main import app\n"
        "try: app(['verify', sys.argv[1]])\n"
        "except SystemExit as ended: status = ended.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, GOLDEN],
        env={**os.environ, "SCANHERALD_FORMATS": "nonsense", "REDIS_URL": "nonsense"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stderr.split())
    assert "cryptography" in loaded
    assert not loaded & {"celery", "sqlalchemy", "redis", "obstore", "reportlab", "httpx"}


def test_a_bundle_that_is_not_valid_ends_with_status_1(tmp_path: Path) -> None:
    changed = bytearray(GOLDEN.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.zip").write_bytes(changed)
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "verify", tmp_path / "changed.zip"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.endswith(
        f"the archive's end is not as the signer wrote it, from byte {len(changed) - 22} on\n"
    )
