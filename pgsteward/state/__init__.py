"""The history of runs. `remember` is for operations: it warns where `History` raises."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgsteward.config import Config
from pgsteward.errors import StewardError
from pgsteward.results import NightResult, StepResult
from pgsteward.state import shortcut
from pgsteward.state.entries import entries_of

if TYPE_CHECKING:
    from pgsteward.state.history import History

log = logging.getLogger(__name__)

__all__ = ["open_history", "remember"]


def open_history(config: Config) -> History:
    """Open the history of a configuration.

    Raises:
        ConfigError: `state_url` is wrong or its secret is missing.
        StateFailed: The database can't be reached.
    """
    from pgsteward.state.history import History

    return History(config.resolved_state_url())


def remember(config: Config, result: NightResult | StepResult, *, database: str = "") -> str | None:
    """Keep a result in the history and return the id of its run; None, and a warning, when that fails."""
    try:
        entries = entries_of(result, database=database)
        if not shortcut.record(config.resolved_state_url(), entries):
            with open_history(config) as history:
                history.write(entries)
        return str(entries.run["id"])
    except StewardError as exc:
        log.warning("this run is missing from the history: %s", exc)
        return None
