"""A step or a night over several databases: which of them needs a person, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pgsteward.report.shapes import Shown, Table
from pgsteward.report.units import NONE, humanize_bytes, humanize_seconds, label, plural
from pgsteward.results import NightResult, Note, StepResult

MAX_NAMES = 6
"""Databases that a sentence names; the rest is counted."""
MAX_GROUPED = 3
"""Databases that one remark names, where several have the same to say."""
_RANK: Mapping[Shown, int] = {"failed": 0, "unknown": 1, "partial": 2, "findings": 3, "ok": 4, "skipped": 5}
_WORDS: Mapping[Shown, str] = {
    "failed": "failed",
    "unknown": "unknown",
    "partial": "incomplete",
    "findings": "with findings",
    "ok": "done",
    "skipped": "with nothing to do",
}
_PLAIN = frozenset(
    {
        "database",
        "status",
        "summary",
        "skipped_because",
        "blocked",
        "examined",
        "seconds",
        "error",
        "total",
        "small",
    }
)
_IN_TABLES = frozenset(
    {"backup_id", "bytes", "files", "proof", "stores", "phases", "rows", "cutoff", "horizon"}
)
"""Details of a database that stand in its row or in the table of what was changed."""


def entries_of(step: StepResult) -> tuple[Mapping[str, Any], ...]:
    """Return what a step says of each database; nothing for a step over one."""
    found = step.details.get("databases", ())
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    return tuple(e for e in found if isinstance(e, Mapping) and "database" in e and "status" in e)


def has_several(steps: Iterable[StepResult]) -> bool:
    """Tell whether these steps worked on several databases."""
    return any(entries_of(step) for step in steps)


def by_database(steps: Sequence[StepResult]) -> dict[str, dict[str, Shown]]:
    """Return the status of each step by database, the databases that need a person first.

    A step that broke before it reached any database, or was kept from running, has done nothing for each.
    """
    names = dict.fromkeys(str(entry["database"]) for step in steps for entry in entries_of(step))
    found: dict[str, dict[str, Shown]] = {name: {} for name in names}
    for step in steps:
        entries = entries_of(step)
        for entry in entries:
            found[str(entry["database"])][step.step] = _shown(step, entry)
        if not entries and _concerns_all(step):
            for statuses in found.values():
                statuses[step.step] = step.status
    return dict(sorted(found.items(), key=lambda item: _RANK[overall(item[1])]))


def overall(statuses: Mapping[str, Shown]) -> Shown:
    """Return the status of one database: failed without a backup, or where nothing else was done."""
    ran = [status for status in statuses.values() if status != "skipped"]
    if not ran:
        return "skipped"
    if statuses.get("backup") == "failed" or all(status == "failed" for status in ran):
        return "failed"
    if all(status == "unknown" for status in ran):
        return "unknown"
    if any(status in ("failed", "unknown", "partial") for status in ran):
        return "partial"
    return "findings" if "findings" in ran else "ok"


def verdict(night: NightResult) -> str:
    """Return what became of the databases of a night, what is wrong first; also what broke as a whole."""
    statuses = {name: overall(steps) for name, steps in by_database(night.steps).items()}
    clauses = []
    for status in _RANK:
        names = [name for name, each in statuses.items() if each == status]
        if names:
            quiet = status in ("ok", "skipped")
            clauses.append(f"{len(names)} {_WORDS[status]}" + ("" if quiet else f" ({some(names)})"))
    broken = [
        f"{step.step} {step.status}"
        for step in night.steps
        if not entries_of(step) and step.status in ("failed", "unknown", "partial")
    ]
    for step in night.steps:
        kinds: tuple[tuple[Shown, Sequence[Note]], ...] = (
            ("failed", step.failed),
            ("unknown", step.unknown),
            ("findings", step.findings),
        )
        broken += [
            f"{step.step} {_WORDS[kind]}"
            for kind, notes in kinds
            if entries_of(step) and any(not split(note.object, list(statuses))[0] for note in notes)
        ]
    return "; ".join([*broken, f"{plural(len(statuses), 'database')}: {', '.join(clauses)}"])


def _concerns_all(step: StepResult) -> bool:
    return step.blocked or step.status in ("failed", "unknown")  # skipped by the configuration is no news


def night_table(night: NightResult) -> Table | None:
    """Return one row for each database of a night; None where it is a night of one."""
    databases = by_database(night.steps)
    if not databases:
        return None
    statuses = tuple(overall(steps) for steps in databases.values())
    took: dict[str, float] = {}
    backups: dict[str, str] = {}
    for step in night.steps:
        for entry in entries_of(step):
            name = str(entry["database"])
            took[name] = took.get(name, 0.0) + float(entry.get("seconds") or 0)
            if step.step == "backup":
                backups[name] = _backup(entry)
    return Table(
        columns=("database", "status", "backup", "took", "what was not done"),
        rows=tuple(
            (
                name,
                status,
                backups.get(name, "NONE" if steps.get("backup") in ("failed", "unknown") else NONE),
                humanize_seconds(took[name]) if took[name] else NONE,
                _not_done(steps, len(night.steps)),
            )
            for (name, steps), status in zip(databases.items(), statuses, strict=True)
        ),
        right=frozenset({2, 3}),
        wrap=True,
        statuses=statuses,
    )


def step_table(step: StepResult, *, in_night: bool) -> Table | None:
    """Return what a step did, by database.

    Args:
        step: The result.
        in_night: Leave out the databases of which the top of a night's page says all there is to say.
    """
    at_top = {note.reason for note in (*step.failed, *step.unknown)}
    changed: dict[str, int] = {}
    names = [str(entry["database"]) for entry in entries_of(step)]
    for item in step.changed:
        name, _ = split(item.object, names)
        changed[name] = changed.get(name, 0) + 1
    rows = []
    for entry in entries_of(step):
        status = _shown(step, entry)
        said = str(entry.get("summary") or NONE)
        if in_night and (status in ("ok", "skipped") or said in at_top):
            continue
        name = str(entry["database"])
        took = entry.get("seconds")
        rows.append(
            (
                name,
                status,
                NONE if took is None or status == "skipped" else humanize_seconds(float(took)),
                NONE if entry.get("examined") is None else f"{entry['examined']:,}",
                f"{changed.get(name, 0):,}",
                said,
            )
        )
    if not rows:
        return None
    rows.sort(key=lambda row: _RANK[row[1]])
    return Table(
        columns=("database", "status", "took", "examined", "changed", "what happened"),
        rows=tuple(rows),
        right=frozenset({2, 3, 4}),
        wrap=True,
        statuses=tuple(row[1] for row in rows),
    )


def facts(step: StepResult) -> tuple[tuple[str, str], ...]:
    """Return what the databases' own details say beside the tables; what all have alike is said once."""
    entries = entries_of(step)
    found = []
    keys = dict.fromkeys(key for entry in entries for key in entry)
    for key in keys:
        if key in _PLAIN | _IN_TABLES:
            continue
        said: dict[str, list[str]] = {}
        for entry in entries:
            value = entry.get(key)
            if isinstance(value, str | list | tuple) and value:
                text = value if isinstance(value, str) else "; ".join(map(str, value))
                said.setdefault(text, []).append(str(entry["database"]))
        if len(said) == 1 and len(next(iter(said.values()))) > 1:
            found.append((label(key), next(iter(said))))
        elif said:
            found.append((label(key), " | ".join(f"{some(names)}: {text}" for text, names in said.items())))
    return tuple(found)


def left_out(steps: Sequence[StepResult]) -> tuple[Note, ...]:
    """Return what every step that ran left out: databases that are none of the target's."""
    ran = [step for step in steps if entries_of(step)]
    if len(ran) < 2:
        return ()
    names = {str(entry["database"]) for step in ran for entry in entries_of(step)}
    return tuple(
        note
        for note in ran[0].skipped
        if note.object not in names and all(note in step.skipped for step in ran)
    )


def grouped(notes: Iterable[Note], names: Sequence[str]) -> list[Note]:
    """Say once what several databases have in common."""
    groups: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        name, rest = split(note.object, names)
        groups.setdefault((rest, note.reason), []).append(name)
    found = []
    for (rest, reason), who in groups.items():
        there = some(list(dict.fromkeys(who)), MAX_GROUPED) if any(who) else ""
        found.append(Note(f"{there}: {rest}" if there and rest else there or rest, reason))
    return found


def split(name: str, databases: Sequence[str]) -> tuple[str, str]:
    """Return the database that an object's name begins with, or "", and the rest."""
    for database in sorted(databases, key=len, reverse=True):
        if name == database:
            return database, ""
        if name.startswith(f"{database}: "):
            return database, name.removeprefix(f"{database}: ")
    return "", name


def some(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """Return names for a sentence, not too many of them."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def _shown(step: StepResult, entry: Mapping[str, Any]) -> Shown:
    """Return a database's status for people: all of its work done, but with findings, is another thing."""
    name, status = str(entry["database"]), entry["status"]

    def concerns(notes: Iterable[Note]) -> bool:
        return any(split(note.object, [name])[0] for note in notes)

    if status == "partial" and concerns(step.findings) and not concerns((*step.failed, *step.unknown)):
        return "findings"
    known: Shown = status if status in _RANK else "unknown"
    return known


def _backup(entry: Mapping[str, Any]) -> str:
    if isinstance(entry.get("bytes"), int):
        return humanize_bytes(entry["bytes"]) + (" PARTIAL" if entry.get("partial") else "")
    return "NONE" if entry["status"] in ("failed", "unknown") else NONE


def _not_done(steps: Mapping[str, Shown], total: int) -> str:
    groups: dict[Shown, list[str]] = {}
    for name, status in steps.items():
        if status != "ok":
            groups.setdefault(status, []).append(name)
    if not groups:
        return NONE
    words = {**_WORDS, "skipped": "skipped"}
    return "; ".join(
        f"{'all steps' if len(groups[status]) == total else ', '.join(groups[status])} {words[status]}"
        for status in sorted(groups, key=_RANK.__getitem__)
    )
