"""One table of a backup beside the live one."""

from __future__ import annotations

from datetime import timedelta

from pgsteward.databases import locate
from pgsteward.restore import choice, table
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("restore-table", retries=0, timeout=timedelta(hours=24))
def bring_table(
    target: str,
    name: str,
    what: str = "latest",
    *,
    store: str | None = None,
    as_of: str | None = None,
    key: str = "",
    rows: int = table.SHOWN,
    database: str | None = None,
    dry_run: bool = False,
) -> StepResult:
    """Bring a table of a backup beside the live one and compare them."""
    with shown_progress("restore-table", target) as progress:
        chosen = load_target(target)
        until = choice.parse_instant(as_of, chosen.settings.retention.time_zone) if as_of else None
        return table.restore_table(
            locate(chosen, what, database=database, store=store),
            name,
            what,
            store=store,
            as_of=until,
            key=table.parse_key(key),
            shown=rows,
            dry_run=dry_run,
            progress=progress,
        )
