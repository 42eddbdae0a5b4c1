"""The history of runs. What is here is for operations: it warns where `History` raises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pgsteward.config import Config
from pgsteward.errors import StewardError
from pgsteward.results import NightResult, StepResult
from pgsteward.state import shortcut
from pgsteward.state.entries import entries_of

if TYPE_CHECKING:
    from pgsteward.state.history import History
    from pgsteward.targets import Target

log = logging.getLogger(__name__)

Kept = TypeVar("Kept")

__all__ = ["keep", "open_history", "recall", "remember"]


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


def recall(target: Target, topic: str, read: Callable[[Any], Kept]) -> dict[str, Kept]:
    """Return what an operation has kept of a target's database, by object.

    When that fails, or another version of pgsteward has kept it in a way that `read` does not know, there is
    a warning, and it is as if nothing had been kept.

    Args:
        target: Bound to one database.
        topic: See `pgsteward.state.history.History.keep`.
        read: Makes of the JSON of one object what the operation works with.
    """
    try:
        with open_history(target.config) as history:
            kept = history.recall(target.name, target.database, topic)
    except StewardError as exc:
        log.warning("what earlier runs have learned (%s) is missing: %s", topic, exc)
        return {}
    found: dict[str, Kept] = {}
    for name, entry in kept.items():
        try:
            found[name] = read(entry)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            log.warning("what was learned (%s) of %s is in another form, and left out: %r", topic, name, exc)
    return found


def keep(target: Target, topic: str, entries: Mapping[str, Any], *, gone: Iterable[str] = ()) -> None:
    """Keep something about objects of a target's database for its next run; warns when that fails."""
    try:
        with open_history(target.config) as history:
            history.keep(target.name, target.database, topic, entries, gone=gone)
    except StewardError as exc:
        log.warning("what this run has learned (%s) was not kept: %s", topic, exc)
