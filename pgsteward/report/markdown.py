"""A page as Markdown: for Prefect's artifacts, chat messages and issues."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pgsteward.report.shapes import Page, Remark, Section, Shown, Table

SIGNS: Mapping[Shown, str] = {
    "ok": "✅",
    "findings": "🔎",
    "partial": "⚠️",
    "failed": "❌",
    "skipped": "⏭️",
    "unknown": "❓",
}


_NAMES = frozenset({"object", "index", "matview", "backup id", "database"})
"""Captions of columns that hold names, which are set as code."""


def render(page: Page) -> str:
    """Return the page; what others wrote (names, messages of the server) can't break out of its cell."""
    lines = [f"# {SIGNS[page.status]} {escape(page.title)}", "", f"**{escape(page.verdict)}**", ""]
    lines += [" · ".join(f"{key} **{escape(value)}**" for key, value in page.facts), ""]
    if page.attention:
        lines += ["## Needs a person", "", *_remarks(page.attention), ""]
    if page.databases is not None:
        lines += ["## Databases", "", *_table(page.databases), ""]
    if page.steps is not None:
        lines += ["## Steps", "", *_table(page.steps), ""]
    for section in page.sections:
        lines += _section(section, alone=page.steps is None)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is: one line, no cell, tag, link or emphasis in it."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return a code span that also holds backticks and, in tables, bars."""
    plain = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}" if plain else ""


def _section(section: Section, *, alone: bool) -> list[str]:
    body: list[str] = []
    if section.facts:
        body += [*(f"- {key}: {escape(value)}" for key, value in section.facts), ""]
    for table in section.tables:
        body += [
            *([f"*{escape(table.caption)}*", ""] if table.caption else []),
            *_table(table),
            "",
        ]
    if section.remarks:
        body += [*_remarks(section.remarks, name_step=False), ""]
    if section.script:
        body += ["```sql", section.script.rstrip(), "```", ""]
    if alone:
        return body
    return (
        [f"## {SIGNS[section.status]} {section.title}", "", escape(section.sentence), "", *body]
        if body
        else []
    )


def _remarks(remarks: Iterable[Remark], *, name_step: bool = True) -> list[str]:
    return [
        f"- **{f'{remark.step} ' if name_step and remark.step else ''}{remark.kind}**:"
        f" {code(remark.object)}: {escape(remark.reason)}"
        for remark in remarks
    ]


def _figure(text: str) -> str:
    """Return a figure, or a status with its sign, that is not parted at the end of a line."""
    return escape(text).replace(" ", "\u00a0")


def _signed(table: Table) -> Iterable[tuple[str, ...]]:
    """Return the rows, each status with its sign."""
    if not table.statuses:
        return table.rows
    at = table.columns.index("status")
    return [
        (*row[:at], f"{SIGNS[status]} {row[at]}", *row[at + 1 :])
        for row, status in zip(table.rows, table.statuses, strict=True)
    ]


def _table(table: Table) -> list[str]:
    whole = table.right | {i for i, column in enumerate(table.columns) if column == "status"}
    first_is_name = table.columns[0] in _NAMES
    lines = [
        "| " + " | ".join(escape(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if i in table.right else "---" for i in range(len(table.columns))) + "|",
    ]
    for row in _signed(table):
        cells = [
            code(c) if i == 0 and first_is_name else _figure(c) if i in whole else escape(c)
            for i, c in enumerate(row)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if table.more:
        lines += ["", f"... and {table.more:,} more"]
    return lines
