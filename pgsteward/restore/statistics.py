"""The planner's statistics of a restored database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pgsteward import sql
from pgsteward.errors import LockTimeout, QueryFailed
from pgsteward.postgres import Connection, compose, connect, identifier, join, quote_name
from pgsteward.restore.outcome import STEP, Order
from pgsteward.restore.verdict import Finding, Verdict
from pgsteward.results import Note
from pgsteward.workers import share_out

Table = tuple[str, str]

_TOGETHER = 100
_TOGETHER_BYTES = 16 * 2**20
"""Tables are analyzed by one statement up to these."""


def analyze(order: Order, name: str, verdict: Verdict) -> tuple[Verdict, list[Note]]:
    """Gather the planner's statistics; no foreign server is asked, and no table's trouble stops the restore.

    Returns:
        The verdict with what could not be analyzed, and what was left out on purpose.
    """
    order.progress("analyzing")
    login = order.admin.to(name)
    with order.phases.phase("analyze"):
        with connect(login, purpose=STEP) as inside:
            rows = inside.rows(sql.load("restore_analyze"))
        left_out = [
            Note(
                quote_name(row["schema_name"], row["name"]),
                "not analyzed: it has foreign children, whose servers would be asked",
            )
            for row in rows
            if row["has_foreign"]
        ]
        groups = list(
            _groups(
                [
                    ((row["schema_name"], row["name"]), row["size_bytes"])
                    for row in rows
                    if not row["has_foreign"]
                ]
            )
        )
        failed = share_out(groups, order.jobs, lambda: connect(login, purpose=STEP), _analyze_group)
    return replace(
        verdict, findings=(*verdict.findings, *(each for some in failed for each in some))
    ), left_out


def _groups(sized: Sequence[tuple[Table, int]]) -> Iterator[list[Table]]:
    """Put small tables together; the largest come first, to be shared out evenly."""
    group: list[Table] = []
    size_bytes = 0
    for table, more in sorted(sized, key=lambda each: -each[1]):
        if group and (len(group) == _TOGETHER or size_bytes + more > _TOGETHER_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(table)
        size_bytes += more
    if group:
        yield group


def _analyze_group(inside: Connection, tables: list[Table]) -> list[Finding]:
    try:
        _analyze(inside, tables)
    except (QueryFailed, LockTimeout):
        return list(_analyze_each(inside, tables))
    return []


def _analyze(inside: Connection, tables: list[Table]) -> None:
    inside.execute(compose("ANALYZE {}", join(", ", [identifier(*table) for table in tables])))


def _analyze_each(inside: Connection, tables: list[Table]) -> list[Finding]:
    failed = []
    for table in tables:
        try:
            _analyze(inside, [table])
        except (QueryFailed, LockTimeout) as exc:
            failed.append(Finding("degraded", quote_name(*table), f"planner statistics not set: {exc}"))
    return failed
