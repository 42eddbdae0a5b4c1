"""A question to whoever started a run: it pauses until the answer was typed in Prefect's UI."""

from __future__ import annotations

from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

PATIENCE_S = 3600
_ASKED_EVERY_S = 2


class Confirmation(RunInput):
    """What has to be typed before a database is replaced.

    Attributes:
        confirm_database: The database's name, once more.
    """

    confirm_database: str


def ask_for_name(target: str, database: str, backup: str) -> str:
    """Pause the run until somebody types the name of the database that is to be replaced.

    Args:
        target: Whose database, for the question.
        database: The one of its databases that is meant.
        backup: What it is replaced with, in words.

    Returns:
        What was typed; whoever replaces it compares.

    Raises:
        FlowPauseTimeout: Nobody did within an hour.
    """
    question = Confirmation.with_initial_data(
        description=f"This replaces **database {database} of target {target}** with {backup}."
        " What was written since then goes out of its place (`pgsteward undo-restore` puts it back)."
        " Type the name of the database to go on; to leave everything as it is, cancel the run."
    )
    answer = pause_flow_run(wait_for_input=question, timeout=PATIENCE_S, poll_interval=_ASKED_EVERY_S)
    return answer.confirm_database
