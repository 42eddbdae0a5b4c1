"""Report: last night's, once more."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from pgsteward.errors import PreconditionError
from pgsteward.report import headline
from tasks.report import last_night, publish_report


@flow(name="report", flow_run_name="report-{target}")
def report(target: str = "app") -> State[Any]:
    """Publish the report of the newest night once more, from the history.

    - **Does**: reads the state database; looks at no database and no backup, so it says what *was* so.
    - **Locks**: none.
    - **Cancel**: any time.
    - **Undo**: nothing is changed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
    """
    night = last_night(target)
    if night is None:
        raise PreconditionError(f"the history holds no night of {target!r}; run nightly first")
    publish_report(night)
    return Completed(message=f"{night.started_at:%Y-%m-%d %H:%M} UTC: {headline(night)}", data=night)
