"""The only room that talks to PostgreSQL through psycopg.

Every session says who it is and has timeouts that fit its job; every psycopg error is translated here,
once, by SQLSTATE; a cancelled Python call cancels its statement on the server; a process that dies takes
its statements along (`client_connection_check_interval`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from pgsteward.errors import (
    ConfigError,
    DatabaseUnavailable,
    LockTimeout,
    PreconditionError,
    QueryFailed,
    StewardError,
    TransientError,
)
from pgsteward.postgres_names import RESERVED
from pgsteward.postgres_settings import (
    ENGLISH,
    READ_ONLY,
    advice,
    in_one_line,
    session_settings,
    with_catalog_first,
)
from pgsteward.sql import load

Row = dict[str, Any]
Statement = bytes | LiteralString | sql.SQL | sql.Composed
Composed = sql.Composed
Part = sql.Composable

MIN_SERVER = 150000
"""Oldest server that is tested; PostgreSQL 14 reached its end of life in November 2026."""


class _Text(psycopg.adapt.Loader):
    """Takes any bytes: roles and databases are named in the encoding of whichever database it was done in."""

    def load(self, data: Any) -> str:
        return str(data, "utf-8", "replace")


_ADAPTERS = psycopg.adapt.AdaptersMap(psycopg.adapters)
for _type in ("text", "name", "varchar"):
    _ADAPTERS.register_loader(_type, _Text)
set_json_loads(lambda data: json.loads(str(data, "utf-8", "replace")), _ADAPTERS)  # type: ignore[arg-type]

_STATE_BEFORE_15: LiteralString = (
    "SELECT pg_catalog.current_setting('search_path') AS path, false AS may_choose_language"
)
_UNAVAILABLE = frozenset({"57P01", "57P02", "57P03", "53300", "40001", "40P01"})


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach one database: a conninfo without a password, and the password beside it.

    Attributes:
        conninfo: libpq key words or URI, without a password.
        password: Left to libpq (.pgpass, service file, certificate) when None.
    """

    conninfo: str
    password: str | None = field(default=None, repr=False)

    @property
    def dbname(self) -> str:
        """The database this login names, as libpq would choose it.

        Raises:
            ConfigError: It names none, or can't be read.
        """
        try:
            parts = conninfo_to_dict(self.conninfo)
        except psycopg.ProgrammingError as exc:
            raise ConfigError(f"the conninfo can't be read: {_sentence(exc)}") from exc
        if parts.get("dbname"):
            return str(parts["dbname"])
        if parts.get("service") or os.environ.get("PGSERVICE"):  # its file may name one, or else not
            raise ConfigError("the conninfo names a service but no database; add dbname=... to it")
        chosen = os.environ.get("PGDATABASE") or parts.get("user") or os.environ.get("PGUSER")
        if not chosen:
            raise ConfigError("the conninfo names no database; add dbname=... to it")
        return str(chosen)

    @property
    def endpoints(self) -> frozenset[str]:
        """The servers that the conninfo names, to be compared with those of another.

        One address written in several ways is one as far as that can be told without asking anybody: loopback
        addresses and sockets with the same port are, a name and its address are not.

        Raises:
            ConfigError: The conninfo can't be read.
        """
        try:
            parts = conninfo_to_dict(self.conninfo)
        except psycopg.ProgrammingError as exc:
            raise ConfigError(f"the conninfo can't be read: {_sentence(exc)}") from exc
        service = parts.get("service") or os.environ.get("PGSERVICE")
        if service and not (parts.get("host") or parts.get("hostaddr")):
            return frozenset({f"service {service}"})
        hosts = str(parts.get("host") or parts.get("hostaddr") or os.environ.get("PGHOST") or "").split(",")
        ports = str(parts.get("port") or os.environ.get("PGPORT") or "5432").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        return frozenset(
            f"{'this machine' if _is_local(host) else host.lower()}:{port or 5432}"
            for host, port in zip(hosts, ports, strict=False)
        )

    def to(self, dbname: str) -> Login:
        """Return the same login for another database of the same server."""
        return Login(make_conninfo(self.conninfo, dbname=dbname), self.password)

    def tool_env(self) -> dict[str, str]:
        """Return the environment variables that pg_dump and friends need besides `conninfo`."""
        return {"PGPASSWORD": self.password} if self.password is not None else {}


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of the server that is not an error; missing rights arrive as one of these."""

    severity: str
    message: str
    sqlstate: str | None = None


def identifier(*parts: str) -> sql.Identifier:
    """Quote a (qualified) name."""
    return sql.Identifier(*parts)


def literal(value: object) -> sql.Literal:
    """Quote a value for the few statements that take no parameters."""
    return sql.Literal(value)


def raw(text: LiteralString) -> sql.SQL:
    """Mark a literal of the source code as SQL, to be used inside `compose`."""
    return sql.SQL(text)


class _Written(sql.SQL):
    """A text that has no placeholders of ours."""


def as_written(text: str) -> sql.SQL:
    """Take an expression of the configuration, or what PostgreSQL has written, as it stands."""
    return _Written(text)


def compose(template: LiteralString, *args: sql.Composable, **parts: sql.Composable) -> sql.Composed:
    """Put quoted parts into a statement; the template is a literal of the source code."""
    return sql.SQL(template).format(*args, **parts)


def compose_file(name: str, **parts: sql.Composable) -> sql.Composed:
    """Put quoted parts into the statement of ``pgsteward/sql/<name>.sql``."""
    return sql.SQL(load(name).decode()).format(**parts)


def join(separator: LiteralString, parts: Iterable[sql.Composable]) -> sql.Composed:
    """Put a separator between quoted parts."""
    return sql.SQL(separator).join(parts)


def quote_name(*parts: str) -> str:
    """Return a qualified name as people write it in SQL, for messages and tool arguments."""
    return ".".join(p if _is_plain(p) else '"' + p.replace('"', '""') + '"' for p in parts)


def _is_plain(name: str) -> bool:
    return name.isidentifier() and name == name.lower() and name.isascii() and name not in RESERVED


def database_argument(dbname: str) -> str:
    """Return a database's name for a client tool, which would take one with ``=`` in it for a conninfo."""
    return make_conninfo(dbname=dbname)


def connect(
    login: Login,
    *,
    purpose: str,
    statement_timeout_s: float = 0.0,
    lock_timeout_s: float = 5.0,
    connect_timeout_s: int = 10,
    autocommit: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Open a session.

    Args:
        login: Where to.
        purpose: Ends up in ``application_name`` as ``pgsteward <purpose>``.
        statement_timeout_s: 0 means none.
        lock_timeout_s: 0 means none. REINDEX CONCURRENTLY must have none: it counts the wait for snapshots.
        connect_timeout_s: For the TCP connection and the greeting, each address tried.
        autocommit: False for sessions that hold a snapshot.
        settings: Further run-time settings of the session.

    Raises:
        DatabaseUnavailable: The server can't be reached or has no room; may heal.
        PreconditionError: The server refuses this login.
    """
    try:
        connection = psycopg.connect(
            login.conninfo,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None,  # behind a pooler its names clash, before anybody could say why
            connect_timeout=connect_timeout_s,
            application_name=f"pgsteward {purpose}"[:63],
            client_encoding="UTF8",
            context=_ADAPTERS,
            password=login.password,
        )
    except psycopg.ProgrammingError as exc:
        raise ConfigError(f"the conninfo can't be read: {_sentence(exc)}") from exc
    except psycopg.OperationalError as exc:
        raise _connection_error(exc, login) from exc
    session = Connection(connection, login)
    version = connection.info.server_version
    wanted = session_settings(version, statement_timeout_s, lock_timeout_s, settings or {})
    try:
        state = session.row(load("session_state") if version >= 150000 else _STATE_BEFORE_15)
        path = with_catalog_first(state["path"])
        if path is not None:
            wanted.setdefault("search_path", path)
        if state["may_choose_language"]:
            session.language = ENGLISH
            wanted.update(ENGLISH)
        session.rows(
            "SELECT pg_catalog.set_config(s.name, s.value, false)"
            "  FROM unnest(%(names)s::pg_catalog.text[], %(values)s::pg_catalog.text[])"
            "    AS s (name, value)",
            {"names": list(wanted), "values": list(wanted.values())},
        )
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return session


class Connection:
    """One session. Use it as a context manager; leaving it closes it."""

    def __init__(self, connection: psycopg.Connection[Row], login: Login) -> None:
        self._connection = connection
        self.login = login
        self.language: Mapping[str, str] = {}
        """What puts the server's messages into English, for tools too; empty where this role may not."""
        self.notices: list[Notice] = []
        connection.add_notice_handler(self._keep_notice)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the session; an open transaction is rolled back."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    @property
    def server_version(self) -> int:
        """E.g. 170010 for 17.10."""
        return self._connection.info.server_version

    @property
    def dbname(self) -> str:
        """Name of the connected database."""
        return self._connection.info.dbname

    @property
    def backend_pid(self) -> int:
        """The pid that the greeting announced; behind a pooler it is not the server's."""
        return self._connection.info.backend_pid

    def pinned(self) -> Login:
        """Return this session's login for this very server: the conninfo may name several, or a name may.

        A snapshot, the proof and the dump in it, a lock and what it guards, belong to one server.
        """
        info = self._connection.info
        where: dict[str, Any] = {"host": info.host, "port": info.port}
        if not info.host.startswith(("/", "@")):
            where["hostaddr"] = info.hostaddr
        return Login(make_conninfo(self.login.conninfo, **where), self.login.password)

    @property
    def closed(self) -> bool:
        """True once the session is over, also when the server ended it."""
        return bool(self._connection.closed)

    def execute(self, statement: Statement, params: Mapping[str, Any] | None = None) -> int:
        """Run a statement and return the number of rows it touched (-1 where there is no such number)."""
        with self._running():
            return self._send(statement, params).rowcount

    def rows(self, statement: Statement, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a query and return all rows as dictionaries."""
        with self._running():
            return self._send(statement, params).fetchall()

    def row(self, statement: Statement, params: Mapping[str, Any] | None = None) -> Row:
        """Run a query and return its first row.

        Raises:
            QueryFailed: There is no row.
        """
        found = self.maybe_row(statement, params)
        if found is None:
            raise QueryFailed("the query returned no row where one is always expected", "02000")
        return found

    def maybe_row(self, statement: Statement, params: Mapping[str, Any] | None = None) -> Row | None:
        """Run a query and return its first row, or None."""
        with self._running():
            return self._send(statement, params).fetchone()

    def value(self, statement: Statement, params: Mapping[str, Any] | None = None) -> Any:
        """Run a query and return the first column of its first row."""
        return next(iter(self.row(statement, params).values()))

    def _send(self, statement: Statement, params: Mapping[str, Any] | None) -> psycopg.Cursor[Row]:
        if params is not None and isinstance(statement, sql.Composable):
            statement = sql.Composed([self._without_placeholders(statement)])
        return self._connection.execute(statement, params)

    def _without_placeholders(self, part: Part) -> Part:
        """Keep a percent sign in a name or a value from being taken for a parameter."""
        if isinstance(part, sql.Composed):
            return sql.Composed([self._without_placeholders(each) for each in part])
        if isinstance(part, sql.Identifier | sql.Literal | _Written):
            return as_written(part.as_string(self._connection).replace("%", "%%"))
        return part

    def copy_in(self, statement: Statement, rows: Iterable[Sequence[Any]]) -> None:
        """Feed rows into ``COPY ... FROM STDIN``."""
        with self._running(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def copy_out(self, query: Part, encoding: str) -> Iterator[bytes]:
        """Yield the rows of a query as COPY writes text, as they come, in one of PostgreSQL's encodings."""
        statement = compose("COPY ({}) TO STDOUT (ENCODING {})", query, literal(encoding))
        with self._running(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for chunk in copy:
                yield bytes(chunk)

    def copy_text(self, table: Part, columns: Sequence[str], chunks: Iterable[bytes], encoding: str) -> None:
        """Feed rows that are in COPY's text form already into a table.

        Args:
            table: Its quoted name.
            columns: Which ones, in the order of the rows.
            chunks: The rows, cut anywhere.
            encoding: Of the rows, as PostgreSQL calls it.
        """
        names = compose(" ({})", join(", ", [identifier(name) for name in columns])) if columns else raw("")
        statement = compose("COPY {}{} FROM STDIN (ENCODING {})", table, names, literal(encoding))
        with self._running(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for chunk in chunks:
                copy.write(chunk)

    def cancel(self) -> None:
        """End the running statement, from another thread; harmless when there is none."""
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=5)

    @contextlib.contextmanager
    def snapshot(self, snapshot_id: str | None = None) -> Iterator[None]:
        """Run a block in one read-only, repeatable-read transaction, in an exported snapshot if one is given.

        Raises:
            TransientError: The session that exported the snapshot is gone.
        """
        with self.transaction():
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if snapshot_id is not None:
                try:
                    self.execute(compose("SET TRANSACTION SNAPSHOT {id}", id=literal(snapshot_id)))
                except QueryFailed as exc:
                    if exc.sqlstate in {"42704", "22023"}:
                        raise TransientError(f"the exported snapshot is gone: {exc}") from exc
                    raise
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block in one transaction: committed at its end, rolled back by an exception."""
        with self._running(), self._connection.transaction():
            yield

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Run a block in one transaction that is rolled back at its end."""
        with self._running(), self._connection.transaction(force_rollback=True):
            yield

    @contextlib.contextmanager
    def collect_notices(self) -> Iterator[list[Notice]]:
        """Collect what the server says besides results; ANALYZE reports missing rights this way, exit 0."""
        start = len(self.notices)
        collected: list[Notice] = []
        try:
            yield collected
        finally:
            collected.extend(self.notices[start:])

    def _keep_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self.notices.append(
            Notice(
                diagnostic.severity_nonlocalized or diagnostic.severity or "",
                diagnostic.message_primary or "",
                diagnostic.sqlstate,
            )
        )

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Translate errors; and end the statement on the server when Python is told to stop."""
        try:
            yield
        except psycopg.Error as exc:
            raise translate(exc) from exc
        except BaseException:
            if self._connection.info.transaction_status == TransactionStatus.ACTIVE:
                with contextlib.suppress(Exception):
                    self._connection.cancel_safe(timeout=5)
            raise


def translate(exc: psycopg.Error) -> StewardError:
    """Return our error for psycopg's, chosen by SQLSTATE."""
    state = exc.sqlstate
    message = _sentence(exc)
    if state == "55P03":
        return LockTimeout(message)
    if state is None and isinstance(exc, psycopg.OperationalError):
        return DatabaseUnavailable(message)
    if state == "25006":
        return DatabaseUnavailable(f"{message}; {READ_ONLY}")
    if state is not None and (state in _UNAVAILABLE or state.startswith("08")):
        return DatabaseUnavailable(message)
    if state == "42501":
        return QueryFailed(f"{message}; `pgsteward doctor` prints the missing GRANT", state)
    if state == "53200" and "max_locks_per_transaction" in str(exc):
        return QueryFailed(f"{message}; raise max_locks_per_transaction", state)
    return QueryFailed(message, state)


def _is_local(host: str) -> bool:
    return not host or host.startswith(("/", "@", "127.")) or host.lower() in {"localhost", "::1"}


def _connection_error(exc: psycopg.OperationalError, login: Login) -> StewardError:
    message = _sentence(exc)
    if (todo := advice(message)) is not None:
        return PreconditionError(f"the server refuses the login: {message}; {todo}")
    full = "too many" in message or "connection slots" in message
    fix = "; raise max_connections or the CONNECTION LIMIT, or wait until others have left" if full else ""
    return DatabaseUnavailable(f"no connection to database {login.dbname!r}: {message}{fix}")


def _sentence(exc: psycopg.Error) -> str:
    diagnostic = exc.diag
    where = (diagnostic.context or "").partition("\n")[0]
    if diagnostic.message_primary:
        extra = [f"{t}" for t in (diagnostic.message_detail, diagnostic.message_hint, where) if t]
        return "; ".join([diagnostic.message_primary, *extra])
    return in_one_line(str(exc))
