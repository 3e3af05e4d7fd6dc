"""A real S3 server on this machine: rclone serves a folder; keys, signatures, times are checked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RCLONE = Path(sys.executable).with_name("rclone")
KEY_ID, SECRET = "key-id", "hunter2-of-the-bucket"


@dataclass(frozen=True, slots=True)
class S3Server:
    """``folder`` holds a folder for each bucket."""

    endpoint: str
    folder: Path

    def environment(self, bucket: str = "reports") -> dict[str, str]:
        """What an operator would set to keep artifacts in a bucket here."""
        return {
            "ARTIFACTS_URL": f"s3://{bucket}/prefix",
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-test-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }


@contextmanager
def serve_s3(
    folder: Path, host: str, port: int, *, inside: Sequence[str] = ()
) -> Iterator[S3Server]:
    """Serve ``folder`` with one bucket, ``reports``, as long as the context lasts.

    ``inside`` is put in front of the command, such as one that enters a network namespace.
    """
    (folder / "reports").mkdir(parents=True)
    command = [*inside, RCLONE, "serve", "s3", "--addr", f"{host}:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{KEY_ID},{SECRET}", folder]
    with (folder.parent / "rclone.log").open("w") as said:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            if not inside:
                _wait(f"http://{host}:{port}", server)
            yield S3Server(f"http://{host}:{port}", folder)
        finally:
            server.terminate()
            server.wait(20)


def _wait(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except urllib.error.HTTPError as answer:  # it answers: without a key it refuses
            answer.close()
            return
        except OSError:
            if time.monotonic() > give_up or server.poll() is not None:
                raise
        time.sleep(0.05)
