"""The published schema is that of the code, and describes what older versions wrote as well."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pgsteward.backup import manifest_schema
from pgsteward.backup.manifest import FORMAT_VERSION, Manifest

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = DOCS / "manifest.schema.json"
OLD = Path(__file__).parent / "golden" / "manifest_format_1.json"
"""Written by the first version that wrote manifests."""


def errors(manifest: object) -> list[str]:
    """Return what the published schema says is wrong."""
    schema = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(schema)
    found = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in found.iter_errors(manifest)]


def test_the_published_schema_is_that_of_the_code() -> None:
    assert PUBLISHED.read_text() == manifest_schema.text(), (
        "run `make format`, or python -m pgsteward.backup.manifest_schema docs/manifest.schema.json"
    )


def described(schema: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    for name, model in {"Manifest": schema, **schema["$defs"]}.items():
        yield name, bool(model.get("description"))
        for key, field in model["properties"].items():
            yield f"{name}.{key}", bool(field.get("description"))


def test_every_key_says_what_it_is() -> None:
    assert [name for name, has in described(manifest_schema.schema()) if not has] == []


def test_a_manifest_of_the_first_version_is_read_and_valid() -> None:
    stored = OLD.read_bytes()
    manifest = Manifest.from_bytes(stored, "the first version's")
    assert (manifest.format_version, manifest.mode, manifest.proof.method) == (1, "directory", "text-v1")
    assert errors(json.loads(stored)) == []
    assert errors(json.loads(manifest.to_bytes())) == [], "and what this version makes of it"


def test_the_example_on_the_page_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (DOCS / "manifest.md").read_text(), re.DOTALL)
    assert errors(json.loads(example)) == []


def test_every_top_level_key_is_on_the_page() -> None:
    page = (DOCS / "manifest.md").read_text()
    rows = "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == set(manifest_schema.schema()["properties"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"format_version": FORMAT_VERSION + 1}, id="newer-format"),
        pytest.param({"backup_id": "20261101T020000Z"}, id="no-tail"),
        pytest.param({"files": [{"path": "dump/toc.dat", "size_bytes": 1}]}, id="a-file-without-hash"),
        pytest.param({"proof": {"level": "some"}}, id="level"),
        pytest.param({"mode": "tar"}, id="mode"),
        pytest.param({"database_bytes": "9 MB"}, id="text-for-bytes"),
        pytest.param({"manifest_sha256": None}, id="without-seal"),
    ],
)
def test_what_is_no_manifest_is_not_valid(change: dict[str, Any]) -> None:
    fields = {**json.loads(OLD.read_text()), **change}
    assert errors({key: value for key, value in fields.items() if value is not None})


@pytest.mark.parametrize("changed", [False, True])
def test_the_seal_can_be_checked_as_the_page_says(tmp_path: Path, changed: bool) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (DOCS / "manifest.md").read_text(), re.DOTALL)
    stored = OLD.read_bytes()
    (tmp_path / "manifest.json").write_bytes(stored.replace(b"1000", b"1001") if changed else stored)
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert said.stdout == (b"False\n" if changed else b"True\n")
