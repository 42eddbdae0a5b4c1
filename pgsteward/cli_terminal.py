"""What people see on a terminal: colours, tables and a bar. Imported only where there is a terminal."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.logging import RichHandler
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from pgsteward.report.shapes import Page, Remark, Section, Table

STYLES: Mapping[str, str] = {
    "ok": "green",
    "findings": "yellow",
    "partial": "yellow",
    "warn": "yellow",
    "unknown": "magenta",
    "skipped": "dim",
    "failed": "bold red",
    "fail": "bold red",
    "fix": "cyan",
    "finding": "yellow",
    "odd": "yellow",
}

stderr = Console(stderr=True)


def print_page(page: Page) -> None:
    """Print a page on standard output."""
    Console().print(_page(page), highlight=False)


def print_error(message: str) -> None:
    """Print why a command failed."""
    stderr.print(Text.assemble(("Error: ", "bold red"), message), highlight=False, soft_wrap=True)


def log_handler() -> logging.Handler:
    """Return what prints logs on standard error."""
    handler = RichHandler(console=stderr, show_path=False, log_time_format="%H:%M:%S", markup=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


class Bar:
    """A bar on standard error, gone when it is stopped."""

    def __init__(self) -> None:
        """Show it."""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=stderr,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def update(self, what: str, done: int, total: int) -> None:
        """Show another state; a total of 0 is none."""
        self._progress.update(self._task, description=escape(what), completed=done, total=total or None)

    def stop(self) -> None:
        """Take it away."""
        self._progress.stop()


def _page(page: Page) -> RenderableType:
    style = STYLES[page.status]
    facts = "   ".join(f"[dim]{escape(key)}[/] {escape(value)}" for key, value in page.facts)
    head = Panel(
        Group(Text(page.verdict), Text.from_markup(facts)),
        title=Text.assemble(
            (f" {page.status.upper()} ", f"reverse {style}"), " ", (page.title + " ", "bold")
        ),
        title_align="left",
        border_style=style,
    )
    parts: list[RenderableType] = [head]
    if page.attention:
        parts += [Text("Needs a person", style="bold"), _remarks(page.attention), ""]
    if page.databases is not None:
        parts += [_table(page.databases), ""]
    if page.steps is not None:
        parts += [_table(page.steps), ""]
    for section in page.sections:
        parts += _section(section, alone=page.steps is None)
    return Group(*parts)


def _section(section: Section, *, alone: bool) -> list[RenderableType]:
    body: list[RenderableType] = []
    if section.facts:
        grid = RichTable.grid(padding=(0, 2))
        for key, value in section.facts:
            grid.add_row(Text(key, style="dim"), Text(value, overflow="fold"))
        body.append(Padding(grid, (0, 0, 0, 2)))
    body += [Padding(_table(table), (0, 0, 0, 2)) for table in section.tables]
    if section.remarks:
        body += [""] if section.tables else []
        body.append(_remarks(section.remarks, name_step=False))
    if section.script:
        body += ["", Text(section.script, overflow="fold")]
    if not body:
        return []
    title = Text.assemble((section.title, f"bold {STYLES[section.status]}"), "  ", section.sentence)
    return [*([] if alone else [title]), *body, ""]


def _remarks(remarks: tuple[Remark, ...], *, name_step: bool = True) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2))
    for remark in remarks:
        cells = [Text(remark.kind, style=STYLES.get(remark.kind, ""))]
        if name_step:
            cells.append(Text(remark.step, style="bold"))
        grid.add_row(*cells, Text(remark.object, overflow="fold"), Text(remark.reason, overflow="fold"))
    return Padding(grid, (0, 0, 0, 2))


def _kept_whole(table: Table) -> frozenset[int]:
    """Return the columns that are never folded: words, figures, and ids that somebody will copy."""
    whole: set[int] = set()
    room = Console().width - 30
    for i, column in enumerate(table.columns):
        cells = [row[i] for row in table.rows]
        width = max(map(len, (*cells, column))) + 2
        if (i in table.right or not any(" " in cell for cell in cells)) and width <= room:
            room -= width
            whole.add(i)
    return frozenset(whole)


def _table(table: Table) -> RenderableType:
    rich_table = RichTable(
        title=table.caption or None, title_justify="left", title_style="dim", box=None, padding=(0, 2, 0, 0)
    )
    whole = _kept_whole(table)
    for i, column in enumerate(table.columns):
        rich_table.add_column(
            column,
            justify="right" if i in table.right else "left",
            header_style="dim",
            overflow="fold",
            no_wrap=i in whole,
        )
    for row in table.rows:
        rich_table.add_row(
            *(
                Text(cell, style=STYLES.get(cell, "") if column == "status" else "")
                for column, cell in zip(table.columns, row, strict=True)
            )
        )
    if table.more:
        return Group(rich_table, Text(f"... and {table.more:,} more", style="dim"))
    return rich_table
