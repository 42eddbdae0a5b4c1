"""The database a restore loads into, under a name and with a comment that say so, until it is whole.

It is given its final name only at the end. One whose run is dead is dropped by the janitor; dead is a run
whose advisory lock is free, never judged by host names or pids.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pgsteward import sql
from pgsteward.errors import DatabaseUnavailable, LockTimeout, PreconditionError, QueryFailed, StewardError
from pgsteward.postgres import Connection, Login, compose, connect, identifier, join, literal, raw
from pgsteward.postgres_lock import LOCK_SPACE, operation_lock, try_lock
from pgsteward.restore.fetch import remove_dead_spools
from pgsteward.restore.marks import MARK
from pgsteward.results import Item, Note

log = logging.getLogger(__name__)

DEFAULT_TABLESPACE = "pg_default"
PREFIX = "pgsteward_tmp_"
UNMARKED = LOCK_SPACE
"""Connection limit of a scratch database between CREATE DATABASE and its mark: a kill may come there."""
OPERATION = "restore"
NAME_BYTES = 63

OPTIONS = {
    name: raw(name)
    for name in (
        "ENCODING",
        "LOCALE_PROVIDER",
        "LOCALE",
        "LC_COLLATE",
        "LC_CTYPE",
        "ICU_LOCALE",
        "ICU_RULES",
        "BUILTIN_LOCALE",
    )
}
"""What a scratch database takes over from the dumped one's ``CREATE DATABASE``."""

_ADMIN_DATABASES = ("postgres", "template1")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A database that a restore made and did not finish.

    Attributes:
        database: Its name.
        marked: It carries our mark; without one it is named and left alone.
        alive: Its run still holds the lock.
        backup_id: What was being restored into it, where the mark says so.
    """

    database: str
    marked: bool
    alive: bool
    backup_id: str | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What became of the leftovers: databases on the server, downloads on this machine."""

    examined: int
    changed: tuple[Item, ...] = ()
    skipped: tuple[Note, ...] = ()
    failed: tuple[Note, ...] = ()


def admin_login(login: Login) -> Login:
    """Return the login for work on databases as a whole: to ``postgres``, or else to ``template1``.

    It leads to one server, also where the conninfo names several.

    Raises:
        PreconditionError: Neither lets us in.
        DatabaseUnavailable: The server can't be reached.
    """
    refusals = []
    for dbname in _ADMIN_DATABASES:
        admin = login.to(dbname)
        try:
            with connect(admin, purpose=OPERATION) as session:
                return session.pinned()
        except PreconditionError as exc:
            refusals.append(str(exc))
    raise PreconditionError(
        f"a restore connects to the database postgres (or template1) to create databases: {refusals[0]}"
    )


@contextlib.contextmanager
def restore_lock(admin: Login) -> Iterator[Connection]:
    """Hold the lock that says that a restore of this server is alive.

    Raises:
        PreconditionError: Another restore works on this server.
    """
    with operation_lock(admin, OPERATION, on="this server") as session:
        yield session


def fit_name(database: str, suffix: str) -> str:
    """Return `database` + `suffix`, the former cut so that PostgreSQL keeps the whole name."""
    room = NAME_BYTES - len(suffix.encode())
    return database.encode()[:room].decode(errors="ignore") + suffix


def create(
    session: Connection,
    run_id: str,
    backup_id: str,
    options: Mapping[str, str],
    tablespace: str | None = None,
    owner: str | None = None,
) -> str:
    """Create the scratch database, empty and closed to everybody but its owner, and return its name.

    Args:
        session: To the admin database.
        run_id: Makes its name unique.
        backup_id: For the mark.
        options: Encoding and locale, as in ``CREATE DATABASE``; what is not among `OPTIONS` is left out.
        tablespace: Where to put it; the server's default when None.
        owner: Whose it is; ours when None. Only the database's owner may own things in the schema public.

    Raises:
        PreconditionError: This server lacks the locale or the rights.
    """
    name = PREFIX + run_id
    parts = [
        compose("CREATE DATABASE {} TEMPLATE template0", identifier(name)),
        compose("CONNECTION LIMIT {}", literal(UNMARKED)),
    ]
    parts += [compose("{} {}", OPTIONS[key], literal(options[key])) for key in OPTIONS if key in options]
    if tablespace not in (None, DEFAULT_TABLESPACE):  # naming the default needs a right, leaving it out none
        parts.append(compose("TABLESPACE {}", identifier(str(tablespace))))
    mark = json.dumps(
        {
            "backup_id": backup_id,
            "lock_database": session.dbname,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    try:
        session.execute(join(" ", parts))
        session.execute(compose("COMMENT ON DATABASE {} IS {}", identifier(name), literal(MARK + mark)))
        session.execute(compose("ALTER DATABASE {} WITH CONNECTION LIMIT -1", identifier(name)))
        session.execute(compose("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", identifier(name)))
        if owner is not None:
            session.execute(compose("ALTER DATABASE {} OWNER TO {}", identifier(name), identifier(owner)))
    except BaseException as exc:
        with contextlib.suppress(StewardError):
            drop(session, name)
        if isinstance(exc, QueryFailed) and exc.sqlstate in {"22023", "42704", "42809", "42501"}:
            raise PreconditionError(
                f"no database with {', '.join(f'{k} {v}' for k, v in options.items())} can be created here:"
                f" {exc}; install the locale on the server, or give the role the right"
            ) from exc
        raise
    return name


def drop(session: Connection, name: str) -> None:
    """Drop a scratch database, whoever is connected to it."""
    if not name.startswith(PREFIX):
        raise PreconditionError(f"{name!r} is not a database of a restore; it is not dropped")
    session.execute(compose("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)))


def discard(session: Connection, name: str) -> None:
    """Drop a scratch database that is not wanted any more, over another session where this one was lost.

    What can't be dropped now is named, and the janitor's: its mark says whose it is.
    """
    try:
        try:
            drop(session, name)
        except DatabaseUnavailable:
            with connect(session.login, purpose=OPERATION, lock_timeout_s=30) as another:
                drop(another, name)
    except StewardError as exc:
        log.warning("The scratch database %s is left for the janitor: %s", name, exc)


def leftovers(login: Login) -> list[Leftover]:
    """Return the databases of unfinished restores on a server, the running one's too."""
    admin = admin_login(login)
    with connect(admin, purpose=OPERATION) as session:
        rows = session.rows(
            sql.load("restore_databases"), {"prefix": PREFIX, "mark": MARK, "unmarked": UNMARKED}
        )
        alive = bool(rows) and not try_lock(session, OPERATION)
    found = []
    for row in rows:
        mark = _read_mark(row["comment"])
        ours = mark is not None or row["unmarked"]
        marked = ours and row["database"].startswith(PREFIX)
        elsewhere = mark is not None and mark.get("lock_database") != admin.dbname
        found.append(Leftover(row["database"], marked, alive or elsewhere, (mark or {}).get("backup_id")))
    return found


def drop_leftovers(login: Login, *, dry_run: bool = False) -> Dropped:
    """Drop the marked databases of dead restores, and remove their downloads on this machine.

    Args:
        login: To any database of the server; may be the restore login of a target.
        dry_run: Report, and drop nothing.

    Returns:
        What was dropped, what was left alone and why, and what could not be dropped.
    """
    found = leftovers(login)
    spools = remove_dead_spools(dry_run=dry_run)
    examined = len(found) + len(spools)
    verb = "would remove" if dry_run else "removed"
    changed = [Item(f"download {spool.name}", verb) for spool in spools]
    skipped: list[Note] = []
    failed: list[Note] = []
    dead = [each for each in found if each.marked and not each.alive]
    for each in found:
        if not each.marked:
            skipped.append(Note(each.database, "named like a scratch database of ours, but without our mark"))
        elif each.alive:
            skipped.append(Note(each.database, "a restore is working on it"))
    if dry_run or not dead:
        changed += [Item(each.database, "would drop", {"backup_id": each.backup_id}) for each in dead]
        return Dropped(examined, tuple(changed), tuple(skipped))
    try:
        with restore_lock(admin_login(login)) as session:  # nobody starts a restore meanwhile
            session.execute("SET statement_timeout = 0")
            for each in dead:
                try:
                    drop(session, each.database)
                except (QueryFailed, LockTimeout) as exc:
                    failed.append(Note(each.database, str(exc)))
                else:
                    log.info("Dropped the scratch database %s of a dead restore", each.database)
                    changed.append(Item(each.database, "dropped", {"backup_id": each.backup_id}))
    except PreconditionError:  # one started just now; what is left is dropped next time
        skipped += [Note(each.database, "a restore is working on this server") for each in dead]
    return Dropped(examined, tuple(changed), tuple(skipped), tuple(failed))


def _read_mark(comment: str) -> dict[str, str] | None:
    if not comment.startswith(MARK):
        return None
    try:
        mark = json.loads(comment.removeprefix(MARK))
    except ValueError:
        return None
    return mark if isinstance(mark, dict) else None
