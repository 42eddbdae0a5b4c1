"""What a server and its disk allow a rebuild, and why bloat comes back there."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgsteward import capacity, sql
from pgsteward.config import ReindexConfig
from pgsteward.errors import PreconditionError
from pgsteward.horizon import holders_for, horizon_holders
from pgsteward.index_bloat import Index
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.postgres_settings import READ_ONLY
from pgsteward.reindex_plan import Candidate
from pgsteward.relations import current_role, name_holder, owner_fix, refuse_read_only
from pgsteward.report.units import humanize_bytes, humanize_seconds

_UNSAFE = range(140_000, 140_004)
_OLD_HORIZON_XIDS = 10_000
_FULL_FILLFACTOR = 90
_RANDOM = 0.2


@dataclass(frozen=True, slots=True)
class Server:
    """What was asked of the server before the plan was made.

    Attributes:
        row: Of ``rebuild_server.sql``.
        facts: Of the indexes that are bloated, by OID.
        horizon: Who keeps dead rows from VACUUM.
    """

    row: Row
    facts: Mapping[int, Row]
    horizon: Sequence[Row]

    @property
    def only_for_vacuum(self) -> list[str]:
        """Who keeps dead rows without holding a rebuild up: slots, and standbys with feedback."""
        return [
            f"{held['kind']} {held['gid'] or name_holder(held)}, {held['age_xids']:,} transactions behind"
            for held in self.horizon
            if held["kind"] in ("replication slot", "standby feedback")
        ]

    def free_disk(self, settings: ReindexConfig) -> tuple[dict[str, int], str]:
        """Return the free bytes by tablespace now, as far as they can be known, and how they are.

        Args:
            settings: May name a figure or a folder, which then holds for every tablespace.

        Raises:
            PreconditionError: The folder that the settings name is not there.
        """
        spaces = {row["space"] for row in self.facts.values()}
        if settings.free_disk_bytes is not None:
            return dict.fromkeys(spaces, int(settings.free_disk_bytes)), "free_disk_bytes"
        if settings.data_folder is not None:
            folder = Path(settings.data_folder)
            if not folder.is_dir():
                raise PreconditionError(f"data_folder: there is no folder {folder} on this machine")
            return dict.fromkeys(spaces, capacity.free_bytes(folder)[0]), f"free in {folder}"
        folder = Path(self.row["data_folder"] or "/nonexistent")
        if not self.row["is_here"] or not _is_its_folder(folder, self.row):
            return {}, "unknown: the server's disk can't be seen from here (free_disk_bytes, data_folder)"
        there = {space: Path(space) if space else folder for space in spaces}
        found = {space: capacity.free_bytes(path)[0] for space, path in there.items() if path.is_dir()}
        return found, f"free in {', '.join(sorted(map(str, {folder, *there.values()})))}"


def look_at_server(connection: Connection) -> Row:
    """Ask the server who it is.

    Raises:
        PreconditionError: Nothing may be rebuilt there.
    """
    row = connection.row(sql.load("rebuild_server"))
    refuse_server(row["version_num"], is_standby=row["is_standby"])
    refuse_read_only(connection)  # it may REINDEX, and could not drop what a failed one leaves
    return row


def refuse_server(version_num: int, *, is_standby: bool) -> None:
    """Make sure that indexes can be rebuilt concurrently without harm.

    Raises:
        PreconditionError: They can't.
    """
    if version_num in _UNSAFE:
        raise PreconditionError(
            "PostgreSQL 14.0 to 14.3 may lose rows from an index that is rebuilt concurrently (bug #17485);"
            " nothing is rebuilt, upgrade to the newest 14.x"
        )
    if is_standby:
        raise PreconditionError(
            f"nothing can be rebuilt: {READ_ONLY}; give the maintenance login the primary"
        )


def ask_server(connection: Connection, row: Row, indexes: Iterable[Index]) -> Server:
    """Ask what the plan for some indexes has to know."""
    oids = [index.oid for index in indexes]
    facts = {fact["oid"]: fact for fact in connection.rows(sql.load("rebuild_facts"), {"oids": oids})}
    return Server(row, facts, horizon_holders(connection))


def _is_its_folder(folder: Path, server: Row) -> bool:
    """Tell whether a folder of this machine is the server's: an address may lead through a tunnel."""
    try:
        control = (folder / "global" / "pg_control").read_bytes()
        return bool(struct.unpack_from("=q", control)[0] == server["system_identifier"])
    except (OSError, struct.error):  # it is another user's, and a socket leads to no other machine
        return bool(server["by_socket"]) and folder.is_dir()


def make_candidates(
    connection: Connection, server: Server, indexes: Iterable[tuple[Index, str]]
) -> list[Candidate]:
    """Return indexes with what a rebuild touches, and what forbids one.

    Args:
        connection: Of the role that rebuilds.
        server: What it has said about them.
        indexes: Each with what forbids its rebuild already, or "".
    """
    found = []
    for index, obstacle in indexes:
        facts = server.facts.get(index.oid)
        if facts is None:  # it is gone since it was measured
            continue
        if not obstacle and not index.is_owner:
            fix = owner_fix(connection, index.owner, index.table)
            obstacle = f"only its owner can clean up after a failed rebuild; run: {fix}"
        found.append(Candidate(index, max(0, facts["table_bytes"]), facts["space"], obstacle))
    return found


def likely_cause(server: Server, index_oid: int, *, gained_little: bool) -> str:
    """Say why a rebuild of an index does not pay, as far as the catalogs tell."""
    facts = server.facts[index_oid]
    holders = holders_for(server.horizon, catalogs=False)
    holder = next((held for held in holders if held["age_xids"] > _OLD_HORIZON_XIDS), None)
    if holder is not None:
        who = holder["gid"] or name_holder(holder)
        return (
            f"likely because {holder['kind']} {who} keeps dead rows of the last {holder['age_xids']:,}"
            " transactions from VACUUM"
        )
    if gained_little and facts["fillfactor"] < _FULL_FILLFACTOR:
        return f"likely because its fillfactor of {facts['fillfactor']} leaves so much free on purpose"
    is_random = facts["correlation"] is not None and abs(facts["correlation"]) < _RANDOM
    if facts["key_type"] == "uuid" or is_random:
        return (
            "likely because its keys come in random order, which splits full pages in halves all the time; a"
            " lower fillfactor, or keys in the order of time, help more than rebuilds"
        )
    return (
        "likely because rows are deleted or updated faster than VACUUM frees their entries; a lower"
        " autovacuum_vacuum_scale_factor of the table helps more than rebuilds"
    )


def name_unseen_replicas(connection: Connection, settings: ReindexConfig) -> str:
    """Say why the lag of replicas can't be told, where there is a limit for it; else ""."""
    if settings.max_replica_lag_bytes is None and settings.max_replica_lag_s is None:
        return ""
    if not any(row["is_hidden"] for row in connection.rows(sql.load("replica_lag"))):
        return ""
    role = quote_name(current_role(connection))
    return f"their lag can't be seen, so no limit of it holds; run: GRANT pg_read_all_stats TO {role}"


def lagging(rows: Iterable[Row], settings: ReindexConfig) -> str:
    """Say which standby or subscriber is too far behind for a rebuild, or "".

    Args:
        rows: Of ``replica_lag.sql``.
        settings: With the limits. A lag in seconds counts only where bytes are behind: it stays as it was
            when nothing more is written.
    """
    most_bytes, most_s = settings.max_replica_lag_bytes, settings.max_replica_lag_s
    for row in rows:
        if row["is_hidden"]:
            continue
        behind, seconds = row["lag_bytes"] or 0, row["lag_s"] or 0.0
        if (most_bytes is not None and behind > most_bytes) or (
            most_s is not None and behind and seconds > most_s
        ):
            who = " ".join(part for part in (row["application_name"], row["address"]) if part)
            return f"replica {who} is {humanize_bytes(behind)} behind ({humanize_seconds(seconds)})"
    return ""
