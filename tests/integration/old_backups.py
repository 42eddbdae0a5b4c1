"""Stores with backups of any age: copies of one that was just made."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward.backup import identity
from pgsteward.backup.catalog import backups
from pgsteward.backup.manifest import MANIFEST, Manifest, backup_prefix
from pgsteward.backup.receipts import Compared, Receipt, write_receipt
from pgsteward.storage import Store
from pgsteward.targets import Target

NOW = datetime.now(UTC)
POLICY = {"keep_last": 1, "keep_min": 1, "keep_proven": 1}


def newest(target: Target) -> str:
    return str(backups(target).details["backups"][0]["backup_id"])


def age(target: Target, store: Store, days: int, target_name: str = "app") -> str:
    """Copy the newest backup within a store as one that is `days` old."""
    source = backup_prefix(target.name, target.database, newest(target))
    manifest = Manifest.from_bytes(store.get_bytes(source + MANIFEST), "it")
    then = NOW - timedelta(days=days)
    backup_id = f"{then:%Y%m%dT%H%M%SZ}-00{days % 10_000:04}"
    prefix = backup_prefix(target_name, target.database, backup_id)
    for file in manifest.files:
        store.put_bytes(prefix + file.path, store.get_bytes(source + file.path))
    old = manifest.model_copy(
        update={"backup_id": backup_id, "started_at": then, "snapshot_at": then, "target": target_name}
    )
    store.put_bytes(prefix + MANIFEST, old.to_bytes())
    return backup_id


def keys(store: Store) -> list[str]:
    return [stored.key for stored in store.objects("") if identity.FOLDER not in stored.key]


def receipt(target: Target, store: Store, backup_id: str, verdict: str = "green") -> str:
    return write_receipt(
        store,
        Receipt.model_validate(
            {
                "previous_sha256": None,
                "written_at": NOW,
                "backup_id": backup_id,
                "target": target.name,
                "database": target.database,
                "store": store.name,
                "what": "restore",
                "into": "x",
                "server_version": "17.1",
                "pgsteward_version": "0",
                "proof": Compared(level="full", relations=1, rows=1, equal=verdict == "green"),
                "verdict": verdict,
            }
        ),
    )


def of_cluster(target: Target, store: Store, backup_id: str, cluster: str | None) -> None:
    """Let a stored backup be one of another cluster."""
    key = backup_prefix(target.name, target.database, backup_id) + MANIFEST
    manifest = Manifest.from_bytes(store.get_bytes(key), "it")
    server = manifest.server.model_copy(update={"system_identifier": cluster})
    store.put_bytes(key, manifest.model_copy(update={"server": server}).to_bytes())


def as_toml(config: dict[str, Any], above: str = "") -> str:
    """Return a configuration as its file would say it."""
    plain, tables = [], []
    for key, value in config.items():
        if isinstance(value, dict):
            tables.append(as_toml(value, f"{above}{key}."))
        else:
            plain.append(f"{key} = {json.dumps(value)}")
    head = f"[{above[:-1]}]\n" if above else ""
    return head + "\n".join([*plain, *tables]) + "\n"
