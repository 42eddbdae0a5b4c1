"""``pgsteward receipts``: the evidence in the stores. Registered in `pgsteward.cli`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pgsteward.cli_run import Database, Json, TargetName, run_operation
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def receipts(
    ctx: typer.Context,
    action: Annotated[
        Literal["list", "verify"],
        typer.Argument(metavar="list|verify", help="List them; or follow their chain in each store."),
    ] = "list",
    target: TargetName = None,
    database: Database = None,
    json: Json = False,
) -> None:
    """List the evidence of restores and drills, or verify that nobody has changed it (else exit status 1)."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.receipt_chain import list_receipts, verify_receipts
        from pgsteward.several import over_stored

        if action == "list":
            return over_stored(chosen, "receipts", list_receipts, database=database)
        found = over_stored(chosen, "receipts-verify", verify_receipts, database=database)
        return replace(found, status="failed") if found.failed else found

    step = "receipts" if action == "list" else "receipts-verify"
    run_operation(ctx, step, target, operation, as_json=json, database=database)
