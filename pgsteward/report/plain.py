"""A page as plain text: for mail, logs and terminals without colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from pgsteward.report.shapes import Page, Remark, Section, Table

WIDTH = 110


def render(page: Page) -> str:
    """Return the page in lines of about 110 characters; names are never cut."""
    title = _wrap(page.title, first=f"{page.status.upper()}  ", rest="  ")
    lines = [*title, "=" * min(max(map(len, title)), WIDTH), *_wrap(page.verdict), ""]
    lines += ["   ".join(f"{key}: {one_line(value)}" for key, value in page.facts), ""]
    if page.attention:
        lines += ["NEEDS A PERSON", *_remarks(page.attention), ""]
    if page.databases is not None:
        lines += ["DATABASES", *_table(page.databases), ""]
    if page.steps is not None:
        lines += ["STEPS", *_table(page.steps), ""]
    for section in page.sections:
        lines += _section(section, alone=page.steps is None)
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def one_line(text: str) -> str:
    """Return text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _section(section: Section, *, alone: bool) -> list[str]:
    body: list[str] = []
    if section.facts:
        width = max(len(key) for key, _ in section.facts)
        for key, value in section.facts:
            body += _wrap(value, first=f"  {key.ljust(width)}  ", rest=" " * (width + 4))
        body.append("")
    for table in section.tables:
        body += [*([f"  {table.caption}:"] if table.caption else []), *_table(table), ""]
    if section.remarks:
        body += [*_remarks(section.remarks, name_step=False), ""]
    if section.script:
        body += [*section.script.splitlines(), ""]
    if alone or not body:
        return body
    return [*_wrap(section.sentence, first=f"{section.title} ({section.status}): ", rest="  "), *body]


def _remarks(remarks: Iterable[Remark], *, name_step: bool = True) -> list[str]:
    lines = []
    for remark in remarks:
        step = f"{remark.step} " if name_step and remark.step else ""
        first = f"  {step}{remark.kind}: {one_line(remark.object)}: "
        lines += _wrap(remark.reason, first=first, rest="    ")
    return lines


def _table(table: Table) -> list[str]:
    rows: Sequence[Sequence[str]] = [table.columns, *([one_line(c) for c in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    last = len(widths) - 1
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(widths[i]) if i in table.right else cell if i == last else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ]
        if table.wrap:
            first = "  " + "  ".join(cells[:-1]) + "  "
            lines += _wrap(cells[-1], first=first, rest=" " * len(first))
        else:
            lines.append("  " + "  ".join(cells))
        if number == 0:
            left = max(WIDTH - sum(widths[:-1]) - 2 * last - 2, 4)
            ruled = [min(w, left) if table.wrap and i == last else w for i, w in enumerate(widths)]
            lines.append("  " + "  ".join("-" * width for width in ruled))
    if table.more:
        lines.append(f"  ... and {table.more:,} more")
    return lines


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        one_line(text) or "-",
        width=max(WIDTH, len(rest) + 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first]
