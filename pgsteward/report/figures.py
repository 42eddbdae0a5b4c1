"""What the night achieved, in numbers: one short clause per step that did something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pgsteward.report import several
from pgsteward.report.units import figure, humanize_bytes, humanize_count, plural
from pgsteward.results import StepResult


def finding(key: str, value: Any) -> str:
    """Return a detail of a step for people; what has a form of its own in the house's words is set here."""
    if key == "proof" and isinstance(value, Mapping):
        return _proof(value)
    if key == "phases":
        return figure("seconds", value)
    return figure(key, value)


def achievements(steps: Iterable[StepResult]) -> tuple[str, ...]:
    """Return a clause for each step that achieved something; a dry run says what it would."""
    clauses = []
    for step in steps:
        clause = _CLAUSES.get(step.step)
        if clause is None or step.status == "skipped":
            continue
        if step.status == "failed":
            clauses += ["there is no backup of this night"] if step.step == "backup" else []
            continue
        text = clause(step)
        if text:
            clauses.append(text)
    return tuple(clauses)


def _proof(proof: Mapping[str, Any]) -> str:
    level = str(proof.get("level", ""))
    if level == "none":
        return "none was taken"
    rows, tables = proof.get("rows"), proof.get("relations", proof.get("tables"))
    parts = [f"{humanize_count(rows)} rows" if isinstance(rows, int) else ""]
    if isinstance(tables, int):
        parts.append(f"in {plural(tables, 'table')}")
    what = {"full": "counted and hashed", "counts": "counted"}.get(level, level)
    return " ".join([*filter(None, parts), what]).strip()


def _backup(step: StepResult) -> str:
    if several.entries_of(step):
        return _backups(step)
    backup_id = step.details.get("backup_id")
    if not backup_id:
        return ""
    size, files, proof = (step.details.get(key) for key in ("bytes", "files", "proof"))
    parts = []
    if isinstance(size, int):
        count = f" in {plural(files, 'file')}" if isinstance(files, int) else ""
        parts.append(f"{humanize_bytes(size)}{count}")
    if step.details.get("encrypted_to"):
        parts.append("encrypted")
    if isinstance(proof, Mapping):
        parts.append(_proof(proof))
    partial = step.details.get("partial")
    if isinstance(partial, list | tuple) and partial:  # complete as a backup, not as a copy of the database
        parts.append(f"holds only a part of the database: {'; '.join(map(str, partial))}")
    return f"backup {backup_id} is complete" + (f" ({', '.join(parts)})" if parts else "")


def _backups(step: StepResult) -> str:
    """Return how many databases have a backup of this night, and which have none."""
    if step.dry_run:
        return ""
    entries = several.entries_of(step)
    made = [entry for entry in entries if entry.get("backup_id")]
    size = sum(entry.get("bytes") or 0 for entry in made)
    parts = [humanize_bytes(size)] if made else []
    parts += [
        f"{word}: {several.some(names)}" if len(names) < len(made) else word
        for word, names in (
            ("encrypted", [entry["database"] for entry in made if entry.get("encrypted_to")]),
            ("holding a part only", [entry["database"] for entry in made if entry.get("partial")]),
        )
        if names
    ]
    text = f"{len(made)} of {plural(len(entries), 'database')} backed up"
    text += f" ({', '.join(parts)})" if parts else ""
    without = [str(entry["database"]) for entry in entries if not entry.get("backup_id")]
    return f"there is no backup of this night of {several.some(without)}; {text}" if without else text


def _upload(step: StepResult) -> str:
    size = sum(int(item.facts.get("bytes", 0) or 0) for item in step.changed)
    done = _done(step, "copy", "uploaded", "to upload", many="copies")
    return f"{done} ({humanize_bytes(size)})" if done and size else done


def _prune(step: StepResult) -> str:
    return _done(step, "backup", "pruned", "to prune")


def _sessions(step: StepResult) -> str:
    rows = sum(int(item.facts.get("rows", 0) or 0) for item in step.changed)
    verb = "to delete" if step.dry_run else "deleted"
    return f"{plural(rows, 'expired row')} {verb}" if rows else ""


def _reindex(step: StepResult) -> str:
    freed = sum(
        int(item.facts["bytes_before"]) - int(item.facts["bytes_after"])
        for item in step.changed
        if isinstance(item.facts.get("bytes_before"), int) and isinstance(item.facts.get("bytes_after"), int)
    )
    done = _done(step, "index", "rebuilt", "to rebuild", many="indexes")
    return f"{done} ({humanize_bytes(freed)} given back)" if done and freed > 0 and not step.dry_run else done


def _analyze(step: StepResult) -> str:
    return _done(step, "table", "analyzed", "to analyze")


def _matviews(step: StepResult) -> str:
    return _done(step, "materialized view", "refreshed", "to refresh")


def _done(step: StepResult, one: str, done: str, planned: str, many: str | None = None) -> str:
    if not step.changed:
        return ""
    return f"{plural(len(step.changed), one, many)} {planned if step.dry_run else done}"


_CLAUSES: Mapping[str, Callable[[StepResult], str]] = {
    "backup": _backup,
    "upload": _upload,
    "prune": _prune,
    "sessions": _sessions,
    "reindex": _reindex,
    "analyze": _analyze,
    "matviews": _matviews,
}
