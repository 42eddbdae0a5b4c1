"""Results as reports. Pure functions: the same result is always the same text."""

from __future__ import annotations

from typing import Any

from pgsteward.report import markdown as _markdown
from pgsteward.report import plain as _plain
from pgsteward.report.page import night_page, step_page
from pgsteward.results import NightResult, StepResult


def text(night: NightResult) -> str:
    """Return a night's report as plain text."""
    return _plain.render(night_page(night))


def markdown(night: NightResult) -> str:
    """Return a night's report as Markdown."""
    return _markdown.render(night_page(night))


def table(night: NightResult) -> list[dict[str, Any]]:
    """Return a night's steps as rows of a table, figures with their units."""
    steps = night_page(night).steps
    assert steps is not None
    return [dict(zip(steps.columns, row, strict=True)) for row in steps.rows]


def step_text(step: StepResult) -> str:
    """Return the report of one step as plain text."""
    return _plain.render(step_page(step))


def step_markdown(step: StepResult) -> str:
    """Return the report of one step as Markdown."""
    return _markdown.render(step_page(step))


def headline(result: NightResult | StepResult) -> str:
    """Return the verdict in one sentence with numbers, for the final state of a run."""
    page = night_page(result) if isinstance(result, NightResult) else step_page(result)
    return f"{page.title}. {page.verdict}"


def troubles(night: NightResult) -> list[str]:
    """Return the headline of a night over several databases, and what is wrong, each reason once.

    For the final state of a run that failed; empty for a night of one database: its steps say it themselves.
    """
    page = night_page(night)
    if page.databases is None:
        return []
    wrong = [f"{r.step} {r.kind} ({r.object}: {r.reason})" for r in page.attention if r.kind != "finding"]
    return [page.title, *wrong]
