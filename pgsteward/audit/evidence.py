"""What the servers have counted of each index, and since when: the primary and its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pgsteward import sql, state
from pgsteward.audit.inventory import Inventory
from pgsteward.audit.usage import Counter, Observation
from pgsteward.config_audit import ReplicaConfig
from pgsteward.errors import StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Login, Row, connect
from pgsteward.targets import Target

PRIMARY = "primary"
TOPIC = "index_audit.first_seen"
_TIMEOUT_S = 30.0


def observe(connection: Connection, target: Target, ledger: Ledger) -> tuple[Row, list[Observation]]:
    """Ask the primary and all replicas.

    Args:
        connection: To the primary.
        target: Whose replicas.
        ledger: Gets replicas that could not be asked, as unknown.

    Returns:
        Which database this is and its clock (see ``audit_observation.sql``), and what each has counted.
    """
    here = connection.row(sql.load("audit_observation"))
    replicas = target.settings.index_audit.replicas
    gap = "track_counts is off, so nothing is counted" if not here["is_counting"] else ""
    if here["standbys"] and replicas is None:
        gap = gap or (
            f"a standby streams from it ({', '.join(dict.fromkeys(here['standbys']))}) and was not asked;"
            " name it in replicas, or write replicas = [] where nobody reads from it"
        )
    observations = [Observation(PRIMARY, here["since"], _counters(connection), gap)]
    for number, replica in enumerate(replicas or (), 1):
        name = f"replica {number}"
        try:
            observations.append(_ask(name, replica, target, here))
        except StewardError as exc:
            observations.append(Observation(name, None, {}, f"could not be asked: {exc}"))
        if observations[-1].gap:
            ledger.doubt(name, observations[-1].gap)
    return here, observations


def _ask(name: str, replica: ReplicaConfig, target: Target, primary: Row) -> Observation:
    login = Login(replica.conninfo, replica.password.resolve() if replica.password else None)
    with connect(
        login.to(target.database), purpose="index audit", lock_timeout_s=0.1, statement_timeout_s=_TIMEOUT_S
    ) as connection:
        there = connection.row(sql.load("audit_observation"))
        same = ("system_identifier", "database_oid")
        if [there[key] for key in same] != [primary[key] for key in same]:
            return Observation(
                name, None, {}, "it is no physical replica of this server: its indexes are others"
            )
        if not there["is_standby"]:
            return Observation(name, None, {}, "it is no standby, but the server itself, or was promoted")
        gap = "" if there["is_counting"] else "track_counts is off, so nothing is counted"
        return Observation(name, there["since"], _counters(connection), gap)


def _counters(connection: Connection) -> Mapping[int, Counter]:
    return {row.pop("oid"): Counter(**row) for row in connection.rows(sql.load("audit_counters"))}


def first_seen(target: Target, here: Row, inventory: Inventory) -> dict[int, datetime]:
    """Return when each index was seen first by any audit, this one included; and remember it.

    They are told apart by OID: one that is made again begins anew, and so does one that is rebuilt.
    """
    database = f"{here['system_identifier']}/{here['database_oid']}"
    before: Mapping[str, str] = state.recall(target, TOPIC, dict).get(database, {})
    now = here["now"].isoformat()
    seen = {str(index.oid): before.get(str(index.oid), now) for index in inventory.indexes}
    if seen != before:
        state.keep(target, TOPIC, {database: seen})
    return {int(oid): datetime.fromisoformat(instant) for oid, instant in seen.items()}
