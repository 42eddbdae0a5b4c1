"""Whose unfinished work is: of which database of which cluster, and on which server the run has its lock.

An advisory lock is known to one server only. A janitor that is connected to a standby finds the lock free
that a backup holds on the primary, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgsteward.postgres import Connection, Row
from pgsteward.sql import load

_NODE = "node"
_LASTING = ("in_recovery", "port", "cluster_name")


def owner_of(session: Connection) -> dict[str, Any]:
    """Return what a mark names of the run whose lock a session holds."""
    return {**session.row(load("whose_mark")), _NODE: dict(session.row(load("whose_node")))}


def made_elsewhere(mark: Mapping[str, Any], here: Row) -> bool:
    """Tell whether the run that left a mark may have its lock on another server of the same cluster.

    A server that was started after the mark was made, and is like the mark's in all that lasts, is taken for
    the same one, restarted: no run of before lives there.

    Args:
        mark: As it was read; one of an older pgsteward names no server, and then the lock alone counts.
        here: What ``whose_node.sql`` returns of the server that was asked for the lock.
    """
    node = mark.get(_NODE)
    if not isinstance(node, dict) or node.get("started_s") == here["started_s"]:
        return False
    if any(node.get(key) != here[key] for key in _LASTING):
        return True
    asked = node.get("asked_s")
    return not isinstance(asked, float) or here["started_s"] < asked
