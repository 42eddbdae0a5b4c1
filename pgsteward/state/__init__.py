"""The history of runs. `remember` is for operations: it warns where `History` raises."""

from __future__ import annotations

import logging

from pgsteward.config import Config
from pgsteward.errors import StewardError
from pgsteward.results import NightResult, StepResult
from pgsteward.state.history import History, Run

log = logging.getLogger(__name__)

__all__ = ["History", "Run", "open_history", "remember"]


def open_history(config: Config) -> History:
    """Open the history of a configuration.

    Raises:
        ConfigError: `state_url` is wrong or its secret is missing.
        StateFailed: The database can't be reached.
    """
    return History(config.resolved_state_url())


def remember(config: Config, result: NightResult | StepResult, *, database: str = "") -> str | None:
    """Keep a result in the history and return the id of its run; None, and a warning, when that fails."""
    try:
        with open_history(config) as history:
            return history.record(result, database=database)
    except StewardError as exc:
        log.warning("this run is missing from the history: %s", exc)
        return None
