"""The README of a bundle, followed to the letter with programs that are not ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from store.bundles import README_TEXT, verify_bundle

GOLDEN = Path(__file__).parents[1] / "data" / "bundle-1.0.zip"
PROGRAMS = ("openssl", "unzip", "sha256sum", "awk", "sed", "grep")

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def programs() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    assert not missing, "not installed; .ci/run names their packages"


def commands() -> list[str]:
    """The deeply indented lines of the README's part on checking by hand."""
    text = README_TEXT.read_text("ascii")
    lines = text[text.index("By hand") :].splitlines()
    return [line.strip() for line in lines if line.startswith(" " * 6)]


def follow(folder: Path) -> list[str]:
    """Run every command, one after the other in one shell; what each of them printed."""
    script = "\n".join(f"{command}; echo '--- status' $?" for command in commands())
    ended = subprocess.run(
        ["/bin/sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    return ended.stdout.split("--- status ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An auditor's folder: the bundle, and the key that came by another way."""
    shutil.copy(GOLDEN, tmp_path / "BUNDLE.zip")
    (tmp_path / "signer.pem").write_text(verify_bundle(GOLDEN.read_bytes()).signer.pem)
    return tmp_path


def test_every_step_by_hand_says_what_verify_says(folder: Path) -> None:
    said = follow(folder)
    statuses = [int(part.splitlines()[0]) for part in said[1:]]
    assert statuses == [0] * len(commands())
    whole = "".join(said)
    manifest = verify_bundle(GOLDEN.read_bytes()).manifest
    digests = {file.name: file.sha256 for file in manifest.files}
    assert "Signature Verified Successfully" in whole
    assert whole.count(": OK\n") == 7
    assert f"{digests['scan.json']}  scan.json" in whole
    assert f'"scan_sha256":"{digests["scan.json"]}"' in whole
    assert f"{manifest.content_sha256}  -" in whole
    assert f"{verify_bundle(GOLDEN.read_bytes()).signer.fingerprint}  -" in whole
    assert (folder / "signer.pem").read_text() in whole


def test_a_changed_report_is_noticed_by_hand_too(folder: Path) -> None:
    changed = GOLDEN.read_bytes().replace(b"stands for the csv", b"stands for the CSV")
    (folder / "BUNDLE.zip").write_bytes(changed)
    assert "report.csv: FAILED" in "".join(follow(folder))


def test_another_key_is_noticed_by_hand_too(folder: Path) -> None:
    subprocess.run(
        "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out signer.pem",
        shell=True,
        cwd=folder,
        check=True,
    )
    said = "".join(follow(folder))
    assert "Signature Verified Successfully" not in said


def test_the_archive_tests_clean(folder: Path) -> None:
    ended = subprocess.run(
        ["unzip", "-t", "BUNDLE.zip"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "No errors detected" in ended.stdout
