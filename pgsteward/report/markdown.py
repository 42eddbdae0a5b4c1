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
    "unknown": "❔",
}


_NAMES = frozenset({"object", "index", "matview", "backup id"})
"""Captions of columns that hold names, which are set as code."""


def render(page: Page) -> str:
    """Return the page; what others wrote (names, messages of the server) can't break out of its cell."""
    lines = [f"# {SIGNS[page.status]} {escape(page.title)}", "", f"**{escape(page.verdict)}**", ""]
    lines += [" · ".join(f"{key} **{escape(value)}**" for key, value in page.facts), ""]
    if page.attention:
        lines += ["## Needs a person", "", *_remarks(page.attention), ""]
    if page.steps is not None:
        signed = [
            (row[0], f"{SIGNS[status]} {row[1]}", *row[2:])
            for row, status in zip(page.steps.rows, page.statuses, strict=True)
        ]
        lines += ["## Steps", "", *_table(page.steps, signed), ""]
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
            *_table(table, table.rows),
            "",
        ]
    if section.remarks:
        body += [*_remarks(section.remarks, name_step=False), ""]
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
    """Return a number that is not parted from its unit at the end of a line."""
    return escape(text).replace(" ", "\u00a0")


def _table(table: Table, rows: Iterable[tuple[str, ...]]) -> list[str]:
    first_is_name = table.columns[0] in _NAMES
    lines = [
        "| " + " | ".join(escape(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if i in table.right else "---" for i in range(len(table.columns))) + "|",
    ]
    for row in rows:
        cells = [
            code(c) if i == 0 and first_is_name else _figure(c) if i in table.right else escape(c)
            for i, c in enumerate(row)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if table.more:
        lines += ["", f"... and {table.more:,} more"]
    return lines
