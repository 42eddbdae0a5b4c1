"""The manifest's published JSON Schema; ``python -m pgsteward.backup.manifest_schema FILE`` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pgsteward.backup.manifest import BACKUP_ID, FORMAT_VERSION, SEAL, Manifest


def schema() -> dict[str, Any]:
    """Return the schema of a stored manifest, of every format version up to this one.

    Keys that it does not name are allowed: a newer pgsteward may know more.
    """
    found = Manifest.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "Manifest of a pgsteward backup"
    found["properties"]["format_version"] |= {"minimum": 1, "maximum": FORMAT_VERSION}
    found["properties"]["backup_id"]["pattern"] = f"^{BACKUP_ID.pattern}$"
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    found["$defs"]["StoredFile"]["properties"]["sha256"] |= digest
    said = "SHA-256 of all other keys as JSON: sorted, without blanks, ASCII only. It is no signature."
    found["properties"][SEAL] = {**digest, "title": "Manifest Sha256", "description": said}
    found["required"].append(SEAL)
    return found


def text() -> str:
    """Return the schema as it is published."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
