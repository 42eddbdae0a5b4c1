"""The list of backups, one line each; of several databases each has a table of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pgsteward.report.shapes import MAX_ROWS, Remark, Table
from pgsteward.report.units import NONE, humanize_age, humanize_bytes, humanize_seconds, plural
from pgsteward.results import StepResult

NEVER = "never"
"""A backup that nobody has restored yet."""
_COLUMNS = ("backup id", "age", "size", "took", "proof", "restored", "stores", "kept because")
_RIGHT = frozenset({1, 2, 3})
_OLDEST = re.compile(r"oldest, as (\w+) has found only")
_COUNTED = re.compile(r"(\w+) (\d+) of (\d+)")


def backup_tables(step: StepResult) -> tuple[Table, ...]:
    """Return the tables of a ``backups`` step, by database in the order in which they are in the result."""
    by_database: dict[str, list[Mapping[str, Any]]] = {}
    for entry in step.details.get("backups", ()):
        by_database.setdefault(str(entry.get("database", "")), []).append(entry)
    return tuple(_table(database, entries) for database, entries in by_database.items())


def backup_remarks(step: StepResult) -> tuple[Remark, ...]:
    """Return what no column has room for: which part of a database a backup holds, and what is odd."""
    remarks = []
    for entry in step.details.get("backups", ()):
        name = entry["backup_id"] if "database" not in entry else f"{entry['database']}: {entry['backup_id']}"
        if entry.get("partial"):
            remarks.append(Remark("partial", step.step, name, "; ".join(entry["partial"])))
        remarks += [Remark("odd", step.step, name, said) for said in entry.get("anomalies", ())]
    return tuple(remarks)


def _table(database: str, entries: Sequence[Mapping[str, Any]]) -> Table:
    count = plural(len(entries), "backup")
    total = humanize_bytes(sum(entry["bytes"] * len(_copies(entry)) for entry in entries))
    return Table(
        columns=_COLUMNS,
        rows=tuple(_row(entry) for entry in entries[:MAX_ROWS]),
        right=_RIGHT,
        caption=f"{database}: {count}, {total} in all stores"
        if database
        else f"{count}, {total} in all stores",
        more=max(0, len(entries) - MAX_ROWS),
        wrap=True,
    )


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = entry.get("seconds")
    return (
        entry["backup_id"],
        humanize_age(entry["age_seconds"]),
        humanize_bytes(entry["bytes"]),
        NONE if seconds is None else humanize_seconds(seconds) if seconds < 60 else humanize_age(seconds),
        _proof(entry["proof"]),
        _restored(entry.get("last_restore")),
        ", ".join(entry["stores"]) or NONE,
        "; ".join(filter(None, (_marks(entry), _kept(entry.get("kept", ()))))),
    )


def _copies(entry: Mapping[str, Any]) -> Sequence[str]:
    return [*entry["stores"], *entry.get("damaged_in", ())]


def _proof(proof: Mapping[str, Any]) -> str:
    missing = proof.get("not_examined")
    return f"{proof['level']} but {missing:,}" if missing else str(proof["level"])


def _restored(receipt: Mapping[str, Any] | None) -> str:
    if receipt is None:
        return NEVER
    drill = " (drill)" if receipt["what"] == "drill" else ""
    return f"{receipt['verdict']} {humanize_age(receipt['age_seconds'])}{drill}"


def _marks(entry: Mapping[str, Any]) -> str:
    """Return what makes a backup another thing than a plain copy of a whole database."""
    damaged = entry.get("damaged_in")
    marks = [
        f"DAMAGED in {', '.join(damaged)}" if damaged else "",
        "NOT EQUAL" if entry.get("state") == "differs" else "",
        "PARTIAL" if entry.get("partial") else "",
        "encrypted" if entry.get("encrypted_to") else "",
        "stream" if entry.get("mode") == "stream" else "",
    ]
    return ", ".join(filter(None, marks))


def _kept(kept: Sequence[Mapping[str, Any]]) -> str:
    """Return the reasons once where all stores have the same, else store by store."""
    said = {entry["store"]: _reasons(entry) for entry in kept}
    if len(set(said.values())) <= 1:
        return next(iter(said.values()), "")
    return "; ".join(f"{store}: {reasons}" for store, reasons in said.items())


def _reasons(entry: Mapping[str, Any]) -> str:
    """Return the reasons in as few words as a narrow column wants: ``daily 2/7`` for ``daily 2 of 7``."""
    if not entry["keep"]:
        return "prune removes it"
    short = [_COUNTED.sub(r"\1 \2/\3", reason) for reason in entry["reasons"]]
    short = ["keep_min" if "(keep_min)" in reason else reason for reason in short]
    oldest = [found[1] for reason in short if (found := _OLDEST.match(reason))]
    said = [reason for reason in short if not _OLDEST.match(reason)]
    return ", ".join([*said, *([f"oldest ({', '.join(oldest)})"] if oldest else [])])
