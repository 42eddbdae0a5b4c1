"""Databases that a restore has replaced: kept under another name, found by their mark, put back or dropped.

The mark is their COMMENT: which database it was, when it was put aside, its own OID (a comment travels with
``pg_dumpall``, an OID does not), its name since then (whoever renames it has plans for it) and the comment
that it had before, which it gets back.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward import results, sql
from pgsteward.errors import LockTimeout, PreconditionError, QueryFailed
from pgsteward.postgres import Composed, Connection, Login, compose, connect, identifier, literal
from pgsteward.progress import Progress, silent
from pgsteward.restore import preflight, scratch, swap
from pgsteward.restore.checks import as_json, refuse
from pgsteward.restore.properties import read_properties
from pgsteward.results import Item, Note, StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "undo-restore"
MARK = "pgsteward:replaced:"
_IN_USE = "55006"


@dataclass(frozen=True, slots=True)
class Copy:
    """A database that was put aside.

    Attributes:
        name: What it is called now.
        database: What it was called.
        put_aside_at: When.
        comment: What its COMMENT was.
        sessions: Who is connected to it now.
        may_own: This role may rename and drop it.
    """

    name: str
    database: str
    put_aside_at: datetime
    comment: str | None
    sessions: int
    may_own: bool


def mark(oid: int, database: str, name: str, comment: str | None) -> str:
    """Return the COMMENT of a database that is put aside now as `name`."""
    facts = {
        "database": database,
        "name": name,
        "oid": oid,
        "put_aside_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "comment": comment,
    }
    return MARK + json.dumps(facts, ensure_ascii=False)


def copies(session: Connection, database: str) -> list[Copy]:
    """Return the databases that were put aside for restored ones, the newest first.

    Args:
        session: To any database of the server.
        database: What they were called.
    """
    found = []
    for row in session.rows(sql.load("replaced_databases"), {"mark": MARK}):
        facts = _facts(bytes(row["comment"]))
        ours = (facts.get("database"), facts.get("oid"), facts.get("name"))
        if ours != (database, row["oid"], row["name"]) or row["name"] == database:
            continue
        try:
            put_aside_at = datetime.fromisoformat(facts["put_aside_at"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError):
            continue
        found.append(
            Copy(row["name"], database, put_aside_at, facts.get("comment"), row["sessions"], row["may_own"])
        )
    return sorted(found, key=lambda copy: (copy.put_aside_at, copy.name), reverse=True)


def _facts(comment: bytes) -> Mapping[str, Any]:
    try:
        facts = json.loads(comment.decode().removeprefix(MARK))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def free_name(session: Connection, database: str, suffix: str) -> str:
    """Return a name for a database that is put aside: two in a second get a number each."""
    more = ("", *(f"_{number}" for number in range(2, 100)))
    tried = (scratch.fit_name(database, f"{suffix}{each}") for each in more)
    return next(name for name in tried if read_properties(session, name) is None)


def undo_restore(
    target: Target,
    *,
    copy: str | None = None,
    confirm_database: str | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> StepResult:
    """Put a database that a restore has replaced back in its place; the restored one is put aside instead.

    Args:
        target: Whose database; its ``restore`` login says which server.
        copy: Name of the one to put back; the one that was put aside last when None.
        confirm_database: The database's own name, once more: what was written since the restore goes away.
        dry_run: Look whether it can be done, and say what would be.
        progress: Is told what happens.

    Raises:
        PreconditionError: Nothing was put aside, something is in the way, or the name is missing; nothing
            was changed.
        LockTimeout: The sessions of the database come back faster than they can be ended; it is as it was.
    """
    began = time.monotonic()
    now, database = datetime.now(UTC), target.database
    if not dry_run and confirm_database != database:
        said = "nothing was given" if confirm_database is None else f"{confirm_database!r} was given"
        raise PreconditionError(
            f"what was written into {database!r} since the restore goes out of its place, so its name is"
            f" asked for, and {said}: repeat it as confirm_database (on the command line: --confirm-database"
            f" {database})"
        )
    admin = scratch.admin_login(target.login("restore"))
    with (
        scratch.restore_lock(admin) as lock,
        connect(admin, purpose=scratch.OPERATION, lock_timeout_s=30) as session,
    ):
        chosen = _choose(copies(session, database), database, copy)
        aside = free_name(session, database, f"_undone_{now:%Y%m%d%H%M%S}")
        there = read_properties(session, database) is not None
        checks = preflight.replaceable(session, chosen.name)
        checks += preflight.replaceable(session, database) if there else []
        refuse(checks)
        if not dry_run:
            progress(f"putting {chosen.name} back as {database}")
            lock.execute("SELECT 1")
            put_back(session, admin, chosen, aside if there else None)
    days = target.settings.restore.keep_replaced_days
    changed = [Item(database, "would put back" if dry_run else "put back", {"was": chosen.name})]
    if there:
        changed.append(Item(aside, "would put aside" if dry_run else "put aside", {"was": database}))
    kept = f"; the restored one is {aside}, and is dropped after {days} days" if there else ""
    verb = "would be" if dry_run else "is"
    return StepResult(
        step=STEP,
        target=target.name,
        status=results.judge(examined=1, changed=changed),
        examined=1,
        changed=tuple(changed),
        seconds=time.monotonic() - began,
        summary=f"{chosen.name} {verb} {database} again{kept}",
        details={
            "database": database,
            "put_back": chosen.name,
            "put_aside_at": chosen.put_aside_at.isoformat(),
            "put_aside": aside if there else None,
            "keep_replaced_days": days,
            "preflight": as_json(checks),
        },
        dry_run=dry_run,
    )


def _choose(found: list[Copy], database: str, name: str | None) -> Copy:
    if name is None and found:
        return found[0]
    for each in found:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in found) or "none"
    wanted = "no database" if name is None else f"{name!r} is none"
    raise PreconditionError(
        f"there is nothing to put back: {wanted} on this server that a restore of pgsteward has put aside for"
        f" {database!r} (there: {names})"
    )


def put_back(session: Connection, admin: Login, chosen: Copy, aside: str | None) -> None:
    """Swap a copy with the database in its place, in one transaction.

    Args:
        session: To the admin database.
        admin: The same, for a second session.
        chosen: What gets its name and its comment back.
        aside: The new name of what is there now; None where there is nothing.
    """
    database = chosen.database

    def work() -> None:
        if aside is not None:
            put_aside(session, database, aside)
        session.execute(
            compose("ALTER DATABASE {} RENAME TO {}", identifier(chosen.name), identifier(database))
        )
        session.execute(_comment(database, chosen.comment))

    swap.swap(admin, session, [chosen.name, database], database, work)


def put_aside(session: Connection, database: str, aside: str) -> None:
    """Rename a database and mark it; to be called inside a transaction."""
    row = session.row(sql.load("database_comment"), {"database": database})
    comment = None if row["comment"] is None else bytes(row["comment"]).decode(errors="replace")
    session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(database), identifier(aside)))
    session.execute(_comment(aside, mark(row["oid"], database, aside, comment)))


def _comment(database: str, comment: str | None) -> Composed:
    return compose("COMMENT ON DATABASE {} IS {}", identifier(database), literal(comment))


def drop_old(target: Target, *, dry_run: bool = False) -> scratch.Dropped:
    """Drop the copies that were put aside more than ``keep_replaced_days`` ago and that nobody uses.

    Only while there is a database in their place.

    Args:
        target: Whose copies; its ``restore`` login says which server.
        dry_run: Report, and drop nothing.
    """
    days = target.settings.restore.keep_replaced_days
    changed: list[Item] = []
    skipped: list[Note] = []
    failed: list[Note] = []
    admin = scratch.admin_login(target.login("restore"))
    with connect(admin, purpose=scratch.OPERATION, lock_timeout_s=30) as session:
        found = copies(session, target.database)
        in_place = bool(found) and read_properties(session, target.database) is not None
        for copy in found:
            facts = {"was": copy.database, "put_aside_at": copy.put_aside_at.isoformat()}
            until = copy.put_aside_at + timedelta(days=days)
            reason = _why_kept(copy, until, in_place=in_place)
            if reason is not None:
                skipped.append(Note(copy.name, reason))
            elif dry_run:
                changed.append(Item(copy.name, "would drop", facts))
            else:
                try:
                    session.execute(compose("DROP DATABASE {}", identifier(copy.name)))
                except (QueryFailed, LockTimeout) as exc:
                    in_use = isinstance(exc, QueryFailed) and exc.sqlstate == _IN_USE
                    (skipped if in_use else failed).append(Note(copy.name, str(exc)))
                else:
                    log.info("Dropped %s, which was put aside %s", copy.name, copy.put_aside_at)
                    changed.append(Item(copy.name, "dropped", facts))
    return scratch.Dropped(len(found), tuple(changed), tuple(skipped), tuple(failed))


def _why_kept(copy: Copy, until: datetime, *, in_place: bool) -> str | None:
    said = f"replaced by a restore at {copy.put_aside_at:%Y-%m-%d %H:%M} UTC"
    if until > datetime.now(UTC):
        return f"{said}, kept until {until:%Y-%m-%d %H:%M} UTC (keep_replaced_days)"
    if not in_place:
        return f"{said}, and there is no database {copy.database} now: undo-restore puts it back"
    if copy.sessions:
        return f"{said}, and sessions are connected to it ({copy.sessions})"
    if not copy.may_own:
        return f"{said}, and this role has not the rights of its owner: drop it by hand"
    return None
