"""Who pins the horizon: as long as somebody may still see a dead row, no VACUUM removes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pgsteward import sql
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.relations import current_role, name_holder


def horizon_holders(connection: Connection) -> list[Row]:
    """Return who keeps dead rows from being removed, oldest first."""
    return connection.rows(sql.load("horizon_holders"))


def holders_for(holders: Iterable[Row], *, catalogs: bool) -> list[Row]:
    """Return who keeps rows of catalogs, or of all other tables: a logical slot keeps none of these."""
    return [holder for holder in holders if catalogs or holder["holds"] == "all"]


def name_horizon_holder(holder: Row) -> str:
    """Return who keeps dead rows in one phrase, with how far back it sees."""
    return f"{_who(holder)}, {holder['age_xids']:,} transactions ago"


def name_horizon_holders(connection: Connection, holders: Sequence[Row], at_most: int = 3) -> str:
    """Return the oldest holders with what would let go of them; where none is seen, why not."""
    if holders:
        named = [f"{name_horizon_holder(holder)} ({_way_out(holder)})" for holder in holders[:at_most]]
        more = f" and {len(holders) - at_most} more" if len(holders) > at_most else ""
        return "; ".join(named) + more
    if connection.value("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"):
        return "nobody that is still there"
    role = quote_name(current_role(connection))
    return f"nobody that our role can see; run: GRANT pg_read_all_stats TO {role}"


def holders_as_json(holders: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the holders for a result's details."""
    return [{**each, "name": name_horizon_holder(each), "way_out": _way_out(each)} for each in holders]


def _who(holder: Row) -> str:
    if holder["kind"] == "session":
        state = f", {holder['state']}" if holder["state"] else ""
        return f"{name_holder(holder)}{state}"
    if holder["kind"] == "prepared transaction":
        return f"{name_holder(holder)} of role {holder['role_name']}"
    if holder["kind"] == "replication slot":
        what = " (catalogs only)" if holder["holds"] == "catalogs" else ""
        return f"{holder['state']} replication slot {holder['gid']!r}{what}"
    return f"standby feedback of {holder['application_name']!r}"


def _way_out(holder: Row) -> str:
    name = str(holder["gid"] or "").replace("'", "''")
    return {
        "session": f"ended by: SELECT pg_terminate_backend({holder['pid']})",
        "prepared transaction": f"ended by: COMMIT PREPARED '{name}' or ROLLBACK PREPARED '{name}'",
        "replication slot": f"start what reads it, or: SELECT pg_drop_replication_slot('{name}')",
        "standby feedback": "end the long query there, or set hot_standby_feedback = off there",
    }[str(holder["kind"])]
