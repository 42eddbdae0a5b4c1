"""A result as rows of the history, before it is known what writes them."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward.results import NightResult, StepResult

HEAD = "0003"
"""The newest migration; a test compares it with the folder, so that Alembic is imported only when needed."""
VERSION_TABLE = "alembic_version"
BUSY_S = 30
"""How long a writer waits for another one."""

_FIGURES = ("bytes_before", "bytes_after", "wal_bytes", "rows")


@dataclass(frozen=True, slots=True)
class Entries:
    """The rows of one run, by column. What the database numbers is left out: ids of steps and what is theirs.

    Attributes:
        run: One row of ``runs``.
        steps: Rows of ``steps``, each with its rows of other tables, by table.
    """

    run: Mapping[str, Any]
    steps: tuple[tuple[Mapping[str, Any], Mapping[str, list[dict[str, Any]]]], ...]


def entries_of(
    result: NightResult | StepResult, *, database: str = "", started_at: datetime | None = None
) -> Entries:
    """Return the rows of a result; see `pgsteward.state.history.History.record` for the arguments."""
    run_id = str(uuid.uuid4())
    if isinstance(result, NightResult):
        kind, taken, database, started_at = "nightly", result.steps, result.database, result.started_at
    else:
        kind, taken = "step", (result,)
        started_at = started_at or datetime.now(UTC) - timedelta(seconds=result.seconds)
    run = {
        "id": run_id,
        "target": result.target,
        "database": database,
        "kind": kind,
        "started_at": started_at,
        "seconds": result.seconds,
        "status": result.status,
        "dry_run": result.dry_run,
        "host": socket.gethostname(),
    }
    steps = tuple(
        (
            {"run_id": run_id, **_step(step, n)},
            {"objects": _objects(step), "step_databases": _databases(step, database)},
        )
        for n, step in enumerate(taken)
    )
    return Entries(run, steps)


def _step(step: StepResult, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "step": step.step,
        "status": step.status,
        "seconds": step.seconds,
        "examined": step.examined,
        "summary": step.summary,
        # what has no place in JSON is kept as its text; a history must not fail over a date
        "json": json.loads(json.dumps(step.as_json(), default=str)),
    }


def _objects(step: StepResult) -> list[dict[str, Any]]:
    rows = [
        {**_blank(item.object, "changed"), "action": item.action, **_figures(item.facts)}
        for item in step.changed
    ]
    for outcome, notes in (("skipped", step.skipped), ("unknown", step.unknown), ("failed", step.failed)):
        rows += [{**_blank(note.object, outcome), "reason": note.reason} for note in notes]
    return rows


def _databases(step: StepResult, database: str) -> list[dict[str, Any]]:
    """Return one row for each database of a step; of a step over one, that one's."""
    whole = {"database": database, "status": step.status, "summary": step.summary, "examined": step.examined}
    whole |= {"seconds": step.seconds, "bytes": step.details.get("bytes")}
    entries: Any = step.details.get("databases") or [whole]
    return [
        {
            "database": str(entry["database"]),
            "status": entry["status"],
            "seconds": entry.get("seconds"),
            "examined": entry.get("examined"),
            "bytes": entry.get("bytes"),
            "summary": str(entry.get("summary", "")),
        }
        for entry in entries
    ]


def _blank(name: str, outcome: str) -> dict[str, Any]:
    row = dict.fromkeys(("action", "reason", "seconds", *_FIGURES))
    return {**row, "object": name, "outcome": outcome}


def _figures(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: facts[key] for key in _FIGURES if isinstance(facts.get(key), int)}
    if isinstance(facts.get("seconds"), int | float):
        found["seconds"] = float(facts["seconds"])
    if facts.get("reason") is not None:
        found["reason"] = str(facts["reason"])
    return found
