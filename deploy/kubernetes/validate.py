"""Builds the base and every overlay, and holds each object against the schema of its kind.

``kubectl kustomize`` builds; neither needs a cluster.  Kubernetes's own kinds are
judged by kubernetes-validate, for the oldest and the newest release we mean;
KEDA's by ``keda.schema.json`` beside this file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

HERE = Path(__file__).parent
RELEASES = ("1.31.0", kubernetes_validate.latest_version())
KUBECTL = Path(sys.executable).with_name("kubectl")


def built(folder: Path) -> list[dict[str, Any]]:
    """The objects that ``kubectl apply -k`` would send.  Raises CalledProcessError."""
    said = subprocess.run(  # noqa: S603  # our own folders
        [KUBECTL, "kustomize", folder], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(said.stdout))


def faults(thing: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one object."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    if thing["apiVersion"].startswith("keda.sh/"):
        schema = json.loads((HERE / "keda.schema.json").read_text("utf-8"))
        for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
            yield f"{name}: {error.json_path}: {error.message}"
        return
    for release in RELEASES:
        try:
            kubernetes_validate.validate(thing, release, strict=True)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            yield f"{name}: Kubernetes {release}: {error}"


def main() -> int:
    """Print a line per build, or what is wrong.  Returns the exit status."""
    status = 0
    for folder in [HERE / "base", *sorted((HERE / "overlays").iterdir())]:
        things = built(folder)
        found = [fault for thing in things for fault in faults(thing)]
        verdict = "\n  ".join([f"{len(found)} faults", *found]) if found else "ok"
        sys.stdout.write(f"{folder.relative_to(HERE)}: {len(things)} objects, {verdict}\n")
        status = status or bool(found)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
