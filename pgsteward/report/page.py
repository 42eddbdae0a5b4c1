"""What a report says, before it is known how it is set: one `Page` for text, Markdown and terminals.

The order is that of somebody who reads it at 7 in the morning: the verdict, what needs a person, the
steps at a glance, then each step with everything that it examined, changed, skipped or could not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pgsteward.report import several
from pgsteward.report.backups import backup_remarks, backup_tables
from pgsteward.report.figures import achievements, finding
from pgsteward.report.shapes import MAX_ROWS, Page, Remark, Section, Shown, Table
from pgsteward.report.units import NONE, humanize_instant, humanize_seconds, is_number, label, plural
from pgsteward.results import Item, NightResult, Note, Status, StepResult

_RANK: Mapping[Status, int] = {"failed": 0, "partial": 1, "unknown": 2, "ok": 3, "skipped": 4}
MAX_REMARKS = 10
"""Remarks of one kind and step at the top of a report; the rest is counted."""

_KINDS = ("failed", "unknown", "finding", "skipped")

MAX_ROWS_OF_SEVERAL = 15
"""Rows of one table of a night over several databases."""

_IN_EVERY_NIGHT = frozenset({"lock waiters"})
"""Lists of objects that stay on the page of such a night; the others are in the JSON."""

_HIDDEN = frozenset(
    {
        "error",
        "database",
        "bloated",
        "bloated_tables",
        "total",
        "small",
        "left",
        "merge",
        "merge_script",
        "part",
        "problems",
        "usage",
        "found_as",
    }
)
"""Details that say again what stands elsewhere on the page."""

_FEWER: Mapping[str, int] = {"sizes": 10}
"""Rows of lists whose end is of no interest; the JSON has all of them."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "decisions": ("database", "backup_id", "store", "age_seconds", "proven", "action", "reasons"),
    "receipts": ("database", "store", "age_seconds", "what", "verdict", "backup_id", "level", "rows", "into"),
    "constraints": ("database", "constraint", "table", "state", "violations"),
    "plan": ("database", "verdict", "index", "reason"),
    "chains": ("database", "store", "receipts", "intact", "newest_at", "newest_sha256"),
    "cleanups": ("database", "table", "expires", "type", "cutoff", "leaves", "share"),
    "horizon": ("database", "name", "holds", "way_out"),
}
"""Tables of which people see these columns only; the JSON has all of them."""


def shown(result: NightResult | StepResult) -> Shown:
    """Return the status as people read it."""
    return "findings" if result.only_findings else result.status


def night_page(night: NightResult) -> Page:
    """Return the report of a night."""
    rows = tuple(
        (
            step.step,
            shown(step),
            humanize_seconds(step.seconds) if step.status != "skipped" else NONE,
            f"{step.examined:,}" if step.status != "skipped" else NONE,
            f"{len(step.changed):,}" if step.status != "skipped" else NONE,
            step.summary or _plain_summary(step),
        )
        for step in night.steps
    )
    dry = " (dry run: nothing was changed)" if night.dry_run else ""
    return Page(
        status=shown(night),
        title=f"{night.target}: {_verdict(night)}{dry}",
        verdict=_numbers(night),
        facts=(
            ("databases" if several.has_several(night.steps) else "database", night.database),
            ("started", humanize_instant(night.started_at)),
            ("took", humanize_seconds(night.seconds)),
        ),
        attention=_attention(night.steps),
        databases=several.night_table(night),
        steps=Table(
            ("step", "status", "took", "examined", "changed", "what happened"),
            rows,
            frozenset({2, 3, 4}),
            wrap=True,
            statuses=tuple(shown(step) for step in night.steps),
        ),
        # what failed comes first; otherwise the order in which it happened (the sort is stable)
        sections=tuple(
            step_section(_without(step, several.left_out(night.steps)), mention_bad=False)
            for step in sorted(night.steps, key=lambda s: 0 if s.status == "failed" else 1)
            if step.status != "skipped"
        )
        + _left_out(night),
    )


def step_page(step: StepResult) -> Page:
    """Return the report of one step."""
    section = step_section(step, mention_bad=True)
    dry = " (dry run: nothing was changed)" if step.dry_run else ""
    return Page(
        status=shown(step),
        title=f"{step.step} {step.target}: {shown(step)}{dry}",
        verdict=section.sentence,
        facts=(
            ("took", humanize_seconds(step.seconds)),
            ("examined", f"{step.examined:,}"),
            ("changed", f"{len(step.changed):,}"),
        ),
        sections=(section,),
    )


def step_section(step: StepResult, *, mention_bad: bool) -> Section:
    """Return what one step has to say.

    Args:
        step: The result.
        mention_bad: List what failed and is unknown here; on a night's page it is at the top already.
    """
    if "checks" in step.details:
        return _checks(step)
    if step.step == "backups":
        return _backups(step)
    if several.entries_of(step):
        return _over_several(step, mention_bad=mention_bad)
    kinds = ("failed", "unknown", "finding", "skipped") if mention_bad else ("skipped",)
    facts, tables = _details(step.details)
    if step.changed:
        tables = (_changes(step.changed), *tables)
    return Section(
        title=step.step,
        status=shown(step),
        sentence=step.summary or _plain_summary(step),
        facts=facts,
        tables=tables,
        remarks=_remarks(step, kinds),
        script=step.details.get("merge_script") or "",
    )


def _over_several(step: StepResult, *, mention_bad: bool) -> Section:
    """Return what a step did to several databases; a night has only what is odd, and not every object."""
    kinds = ("failed", "unknown", "finding", "skipped") if mention_bad else ("skipped",)
    in_table = {each["skipped_because"] for each in several.entries_of(step) if each.get("blocked")}
    most = MAX_ROWS if mention_bad else MAX_ROWS_OF_SEVERAL
    table = several.step_table(step, in_night=not mention_bad)
    _, lists = _details({k: v for k, v in step.details.items() if k != "databases"}, most)
    if not mention_bad:
        lists = tuple(each for each in lists if each.caption in _IN_EVERY_NIGHT)
    return Section(
        title=step.step,
        status=shown(step),
        sentence=step.summary or _plain_summary(step),
        facts=several.facts(step),
        tables=(
            *([table] if table else ()),
            *([_changes(step.changed, most)] if step.changed else ()),
            *lists,
        ),
        # what was kept from running stands in the night's table of databases
        remarks=tuple(r for r in _remarks(step, kinds) if mention_bad or r.reason not in in_table),
    )


def _left_out(night: NightResult) -> tuple[Section, ...]:
    """Return what every step left out, once."""
    notes = several.left_out(night.steps)
    if not notes:
        return ()
    return (
        Section(
            title="left out",
            status="skipped",
            sentence=f"{plural(len(notes), 'database or pattern', 'databases or patterns')} in every step",
            remarks=tuple(Remark("skipped", "", note.object, note.reason) for note in notes),
        ),
    )


def _without(step: StepResult, notes: Sequence[Note]) -> StepResult:
    if not notes:
        return step
    return replace(step, skipped=tuple(note for note in step.skipped if note not in notes))


def _backups(step: StepResult) -> Section:
    """Return the list of backups: what is wrong below it, and then what is only worth knowing."""
    remarks = _remarks(step, ("failed", "unknown", "finding", "skipped"))
    return Section(
        title=step.step,
        status=shown(step),
        sentence=step.summary,
        tables=backup_tables(step),
        remarks=(*remarks, *backup_remarks(step)),
    )


def _checks(step: StepResult) -> Section:
    """Return the checks of ``doctor``: what is wrong first, and what to do about it below."""
    order = {"fail": 0, "unknown": 1, "warn": 2, "ok": 3, "skipped": 4}
    checks = sorted(_alike(step.details["checks"]), key=lambda check: order[check["status"]])
    return Section(
        title=step.step,
        status=shown(step),
        sentence=step.summary,
        tables=(
            Table(
                ("status", "check", "what was found"),
                tuple((check["status"], check["check"], check["message"]) for check in checks),
                wrap=True,
            ),
        ),
        remarks=tuple(
            Remark("fix", step.step, check["check"], check["fix"]) for check in checks if check["fix"]
        ),
    )


def _alike(checks: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the checks; unknown ones of one kind that all say the same become one that names them."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for check in checks:
        kind, colon, _ = check["check"].partition(": ")
        alike = check["status"] == "unknown" and colon and not check["fix"]
        groups.setdefault((kind, check["message"]) if alike else (check["check"],), []).append(check)
    merged: list[Mapping[str, str]] = []
    for (kind, *_), group in groups.items():
        first = group[0]
        if len(group) > 1:
            names = ", ".join(check["check"].removeprefix(f"{kind}: ") for check in group)
            first = {
                **first,
                "check": f"{kind}: {len(group)} more",
                "message": f"{first['message']}: {names}",
            }
        merged.append(first)
    return merged


def _remarks(step: StepResult, kinds: Sequence[str]) -> tuple[Remark, ...]:
    groups: Mapping[str, Sequence[Note]] = {
        "failed": step.failed,
        "unknown": step.unknown,
        "finding": step.findings,
        "skipped": step.skipped,
    }
    names = [str(entry["database"]) for entry in several.entries_of(step)]
    if names:
        groups = {kind: several.grouped(notes, names) for kind, notes in groups.items()}
    remarks = [Remark(kind, step.step, n.object, n.reason) for kind in kinds for n in groups[kind]]
    if step.status == "failed" and "failed" in kinds and not step.failed:
        remarks.insert(0, Remark("failed", step.step, step.target, step.summary or "no reason was given"))
    return tuple(remarks)


def _attention(steps: Sequence[StepResult]) -> tuple[Remark, ...]:
    """What needs a person, worst first; what several steps say in the same words is said once."""
    ran = sum(step.status != "skipped" for step in steps)
    merged: dict[tuple[str, str, str], list[str]] = {}
    for step in sorted(steps, key=lambda s: _RANK[s.status]):
        for r in (*_remarks(step, ("failed", "unknown", "finding")), *_kept_from_running(step)):
            merged.setdefault((r.kind, r.object, r.reason), []).append(r.step)
    groups: dict[tuple[str, str], list[Remark]] = {}
    for (kind, name, reason), names in merged.items():
        who = "every step" if len(names) == ran > 2 else ", ".join(names)
        remark = Remark(kind, who, name, reason)
        groups.setdefault((remark.step, kind), []).append(remark)
    found: list[Remark] = []
    for (step_names, kind), remarks in groups.items():
        found += remarks[:MAX_REMARKS]
        if len(remarks) > MAX_REMARKS:
            more = plural(len(remarks) - MAX_REMARKS, "more object")
            found.append(Remark(kind, step_names, more, "all of them are in the JSON"))
    return tuple(sorted(found, key=lambda remark: _KINDS.index(remark.kind)))


def _kept_from_running(step: StepResult) -> tuple[Remark, ...]:
    """A step that another's failure kept from running needs a person as much as the failure itself."""
    if step.status != "skipped":
        return ()
    return tuple(
        Remark("skipped", step.step, note.object, note.reason)
        for note in step.skipped
        if step.blocked or note.reason.startswith("late")
    )


def _verdict(night: NightResult) -> str:
    total = len(night.steps)
    if not total:
        return "nothing ran"
    if several.has_several(night.steps):
        return several.verdict(night)
    count = {status: sum(step.status == status for step in night.steps) for status in _RANK}
    if night.status == "ok":
        did = f"all {total} steps" if count["ok"] == total else f"{count['ok']} of {total} steps"
        rest = f", {count['skipped']} had nothing to do" if count["skipped"] else ""
        return f"{did} did their work{rest}"
    if night.status == "skipped":
        return f"all {total} steps were skipped"
    if night.only_findings:
        found = sum(len(step.findings) for step in night.steps)
        where = ", ".join(step.step for step in night.steps if step.findings)
        return f"all work was done; {plural(found, 'finding')} for a person ({where})"
    words: Mapping[Status, str] = {"failed": "failed", "partial": "incomplete", "unknown": "unknown"}
    parts: list[str] = []
    for status, word in words.items():
        names = [step.step for step in night.steps if step.status == status]
        if names:
            of = f" of {plural(total, 'step')}" if not parts else ""
            parts.append(f"{len(names)}{of} {word} ({', '.join(names)})")
    return ", ".join(parts)


def _numbers(night: NightResult) -> str:
    found = achievements(night.steps)
    if not found:
        return "Nothing was changed."
    text = "; ".join(found) + "."
    return text[0].upper() + text[1:]


def _plain_summary(step: StepResult) -> str:
    word = "would be changed" if step.dry_run else "changed"
    return f"{step.examined:,} examined, {len(step.changed):,} {word}"


def _changes(changed: Sequence[Item], most: int = MAX_ROWS) -> Table:
    keys = list(dict.fromkeys(key for item in changed for key in item.facts))
    rows = [(item.object, item.action, *(item.facts.get(key) for key in keys)) for item in changed]
    return _table(("object", "action", *keys), rows, "changed", most)


def _details(
    details: Mapping[str, Any], most: int = MAX_ROWS
) -> tuple[tuple[tuple[str, str], ...], tuple[Table, ...]]:
    facts: list[tuple[str, str]] = []
    tables: list[Table] = []
    for key, value in details.items():
        if key in _HIDDEN or value is None or value in ({}, [], (), ""):
            continue
        rows = _rows_of(value)
        if rows is not None:
            found = dict.fromkeys(name for row in rows for name in row)
            keys = [name for name in _COLUMNS.get(key, found) if name in found]
            cells = [tuple(row.get(name) for name in keys) for row in rows]
            table = _table(keys, cells, label(key), min(most, _FEWER.get(key, most)))
            if key == "lock_waiters":  # these seconds are not what something took
                table = replace(table, columns=(*table.columns[:-1], "waited"))
            tables.append(table)
        else:
            facts.append((label(key), finding(key, value)))
    return tuple(facts), tuple(tables)


def _rows_of(value: Any) -> list[Mapping[str, Any]] | None:
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        rows = [entry for entry in value if isinstance(entry, Mapping)]
        if len(rows) == len(value):
            return rows
    return None


def _table(keys: Sequence[str], rows: Sequence[Sequence[Any]], caption: str, most: int = MAX_ROWS) -> Table:
    right = frozenset(i for i in range(len(keys)) if all(is_number(row[i]) for row in rows))
    return Table(
        columns=tuple(label(key) for key in keys),
        rows=tuple(
            tuple(finding(key, cell) for key, cell in zip(keys, row, strict=True)) for row in rows[:most]
        ),
        right=right,
        caption=caption,
        more=max(0, len(rows) - most),
        wrap=len(keys) - 1 not in right,
    )
