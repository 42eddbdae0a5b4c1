"""Tables and indexes by name: what they are, what our role may do with them, and who locks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pgsteward import sql
from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.postgres_names import split_qualified
from pgsteward.report.units import humanize_age

GONE = "it was dropped meanwhile"
_MAINTAIN_SINCE = 170000


@dataclass(frozen=True, slots=True)
class Relation:
    """One entry of ``pg_class``.

    Attributes:
        kind: ``pg_class.relkind``: r table, p partitioned table, m materialized view, f foreign table ...
        is_owner: Our role has the rights of the owner.
        has_maintain: Our role was granted MAINTAIN (PostgreSQL 17 and newer).
        is_database_owner: Our role has the rights of the database's owner, who may VACUUM and ANALYZE.
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    is_owner: bool
    has_maintain: bool
    is_database_owner: bool

    @property
    def qualified(self) -> str:
        """The name as people write it in SQL."""
        return quote_name(self.schema, self.name)

    @property
    def may_vacuum(self) -> bool:
        """Whether VACUUM and ANALYZE do their work; without the right they warn and report success."""
        return self.is_owner or self.has_maintain or self.is_database_owner

    @property
    def may_refresh(self) -> bool:
        """Whether REFRESH MATERIALIZED VIEW is allowed."""
        return self.is_owner or self.has_maintain


def relation_from(row: Row) -> Relation:
    """Return the relation of a row that has these columns, among others."""
    return Relation(**{name: row[name] for name in Relation.__slots__})


def find_relation(connection: Connection, qualified: str) -> Relation | None:
    """Return a relation by the name in the configuration, or None."""
    schema, name = split_qualified(qualified)
    row = connection.maybe_row(sql.load("relation_by_name"), {"schema": schema, "name": name})
    return None if row is None else relation_from(row)


def find_table(connection: Connection, qualified: str) -> Relation:
    """Return a table or partitioned table by the name in the configuration.

    Raises:
        ConfigError: There is no such table in the database, or it is something else.
    """
    found = find_relation(connection, qualified)
    if found is None:
        raise ConfigError(f"database {connection.dbname} has no table {qualified}; correct the name")
    if found.kind not in {"r", "p"}:
        raise ConfigError(f"{qualified} is not a table; name the table behind it")
    return found


def is_gone(connection: Connection, oid: int) -> bool:
    """Tell whether a relation has been dropped."""
    return not connection.value(
        "SELECT EXISTS (SELECT FROM pg_class WHERE oid = %(oid)s::int8::oid)", {"oid": oid}
    )


def leaves(connection: Connection, relation: Relation) -> list[Relation]:
    """Return the relations that hold a table's rows: itself, its partitions, its children, any level down."""
    return [relation_from(row) for row in connection.rows(sql.load("relation_leaves"), {"oid": relation.oid})]


def refuse_standby(connection: Connection) -> None:
    """Raise when the server is a standby, where nothing can be changed.

    Raises:
        PreconditionError: It is in recovery.
    """
    if connection.value("SELECT pg_is_in_recovery()"):
        raise PreconditionError(
            f"the server of database {connection.dbname} is a standby, where nothing can be changed; let"
            " the conninfo of [targets.NAME.maintenance] lead to its primary"
        )


def is_read_only(connection: Connection) -> bool:
    """Tell whether no row can be changed in this session: on a standby, or by a setting."""
    return bool(connection.value("SELECT current_setting('transaction_read_only')::bool"))


def refuse_read_only(connection: Connection) -> None:
    """Raise when no row can be changed.

    Raises:
        PreconditionError: The server is a standby, or transactions are read-only here.
    """
    refuse_standby(connection)
    if is_read_only(connection):
        raise PreconditionError(
            f"transactions of {quote_name(current_role(connection))} in database {connection.dbname} are"
            " read-only: default_transaction_read_only is on, by ALTER ROLE, ALTER DATABASE, PGOPTIONS or"
            " postgresql.conf (some hosts do that when a disk is full); turn it off there"
        )


def current_role(connection: Connection) -> str:
    """Return the role whose rights count."""
    return str(connection.value("SELECT current_user::text"))


def maintain_fix(connection: Connection, relation: Relation) -> str:
    """Return the statement that gives our role what VACUUM, ANALYZE and REFRESH need."""
    role = quote_name(current_role(connection))
    if connection.server_version >= _MAINTAIN_SINCE:
        return f"GRANT MAINTAIN ON TABLE {relation.qualified} TO {role}"
    return owner_fix(connection, relation.owner, relation.qualified)


def owner_fix(connection: Connection, owner: str, table: str) -> str:
    """Return the statement that gives our role the rights of a table's owner.

    A superuser's rights are none to be given: a member of that role is one.
    """
    role = quote_name(current_role(connection))
    if connection.value("SELECT rolsuper FROM pg_roles WHERE rolname = %(owner)s", {"owner": owner}):
        return f"ALTER TABLE {table} OWNER TO ... (no superuser, but a role whose rights {role} has)"
    return f"GRANT {quote_name(owner)} TO {role}"


def lock_holders(
    connection: Connection, oid: int, own_pids: Sequence[int] = (), *, below: bool = False
) -> list[Row]:
    """Return who holds a lock on a table, oldest first; a prepared transaction has a gid and no pid.

    Args:
        connection: Whose own locks are left out.
        oid: The table.
        own_pids: Sessions that are left out as well.
        below: Also who holds one on anything that inherits from it.
    """
    about = {"oid": oid, "below": below, "own_pids": list(own_pids)}
    return connection.rows(sql.load("lock_holders"), about)


def name_holder(holder: Row) -> str:
    """Return one holder of a lock or a snapshot as an operator would look for it."""
    since = f", since {holder['since']}" if holder.get("since") else ""
    if holder.get("age_s") is not None:
        since += f" ({humanize_age(holder['age_s'])})"
    if holder.get("pid") is None:
        return f"prepared transaction {holder.get('gid') or 'of unknown name'!r}{since}"
    who = " ".join(part for part in (holder.get("role_name"), holder.get("application_name")) if part)
    return f"pid {holder['pid']}{f' ({who})' if who else ''}{since}"


def name_holders(holders: Iterable[Row], at_most: int = 3) -> str:
    """Return several holders in one phrase; ``nobody that could be named`` when there is none."""
    named = list(dict.fromkeys(name_holder(holder) for holder in holders))
    if not named:
        return "nobody that could be named"
    more = f" and {len(named) - at_most} more" if len(named) > at_most else ""
    return ", ".join(named[:at_most]) + more


def is_excluded(patterns: Iterable[str], schema: str, name: str) -> bool:
    """Tell whether a name is on a list of the configuration; ``*`` and ``?`` stand for anything."""
    return any(
        fnmatchcase(form, pattern)
        for pattern in patterns
        for form in (quote_name(schema, name), f"{schema}.{name}", name)
    )
