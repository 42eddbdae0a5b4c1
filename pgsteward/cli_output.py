"""What the command line prints: results on standard output, progress and logs on standard error.

On a terminal in colour and tables; into a file or a pipe as the plain text of the report, which cuts no name.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.logging import RichHandler
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from pgsteward import report
from pgsteward.report.page import Page, Remark, Section, Table, night_page, step_page
from pgsteward.results import NightResult, StepResult

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
}
_PATIENCE_S = 1.0

stderr = Console(stderr=True)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one object; what has no place in JSON is printed as its text."""
    json.dump(data, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_result(result: StepResult | NightResult, *, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print_json(result.as_json())
        return
    if not sys.stdout.isatty():
        plain = report.text(result) if isinstance(result, NightResult) else report.step_text(result)
        sys.stdout.write(plain)
        sys.stdout.flush()
        return
    page = night_page(result) if isinstance(result, NightResult) else step_page(result)
    Console().print(_page(page), highlight=False)


def print_error(message: str) -> None:
    """Print why a command failed."""
    stderr.print(Text.assemble(("Error: ", "bold red"), message), highlight=False, soft_wrap=True)


def set_up_logging(verbose: int) -> None:
    """Send the logs of pgsteward to standard error: warnings on a terminal, everything of note in a file.

    Args:
        verbose: 1 for information on a terminal as well, 2 for debugging.
    """
    handler: logging.Handler
    if stderr.is_terminal:
        handler = RichHandler(console=stderr, show_path=False, log_time_format="%H:%M:%S", markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
        level = logging.WARNING
    else:
        handler = logging.StreamHandler()
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        level = logging.INFO
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pgsteward").setLevel({0: level, 1: logging.INFO}.get(verbose, logging.DEBUG))


class TerminalProgress:
    """Shows on a terminal what is being done, once that takes longer than a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._state = (what, 0, 0)
        self._lock = threading.Lock()
        self._timer = threading.Timer(_PATIENCE_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if stderr.is_terminal:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._state = ("", 0, 0)
            if self._bar is not None:
                self._bar.stop()

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Take note of a state; see `pgsteward.progress.Progress`."""
        with self._lock:
            self._state = (what or self._what, done, total)
            if self._bar is not None:
                self._update(self._bar)

    def _show(self) -> None:
        with self._lock:
            if not self._state[0]:
                return
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TimeElapsedColumn(),
                console=stderr,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._update(self._bar)
            self._bar.start()

    def _update(self, bar: Progress) -> None:
        what, done, total = self._state
        bar.update(self._task, description=escape(what), completed=done, total=total or None)


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
        body.append(_remarks(section.remarks, name_step=False))
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
