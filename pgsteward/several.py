"""One operation over the databases of a target, and one result of it all.

For a target with one database nothing happens here but the call. Where there are several, one that fails
stops no other: its failure is in the result under its name, and so is what was left out and why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pgsteward import capacity, results, sql
from pgsteward.backup.filters import matching
from pgsteward.backup.plan import SESSIONS_BESIDE
from pgsteward.config_audit import label_of
from pgsteward.databases import Found, bind, bind_covered, find, stored
from pgsteward.errors import ConfigError, StewardError
from pgsteward.postgres import connect
from pgsteward.progress import Progress, silent
from pgsteward.relations import find_relation
from pgsteward.report.units import plural
from pgsteward.results import Item, Note, Status, StepResult
from pgsteward.retries import call_with_retries
from pgsteward.side_by_side import MAX_RUNNING, run_side_by_side
from pgsteward.targets import Target
from pgsteward.used import Used

log = logging.getLogger(__name__)

NEW = "it was not there when the night began"
"""Why a night leaves out a database that an earlier step has not worked on."""
GONE = "no longer on the server; its backups stay until somebody removes them"
LEFT = "not one of the target's databases any more; its backups stay until somebody removes them"

_LOOKS_AT: Mapping[str, str] = {
    "bloat": "indexes",
    "reindex": "indexes",
    "indexes": "indexes",
    "analyze": "tables",
}

_JOINED = frozenset(
    {"backups", "chains", "decisions", "indexes", "bloated", "order", "lock_waiters", "receipts"}
    | {"problems", "constraints", "usage", "sizes", "plan", "left_out"}
)
"""Lists of objects, which are joined also where they are empty: a reader finds them in one place."""

T = TypeVar("T")
Call = Callable[[Target], StepResult]
Parts = list[tuple[str, StepResult]]


def over(
    target: Target,
    step: str,
    call: Call,
    *,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
    side_by_side: str | None = None,
    progress: Progress = silent,
) -> StepResult:
    """Run an operation over the databases that a target has on its server now.

    Args:
        target: Its databases.
        step: Name of the operation, as in its results.
        call: The operation; gets the target bound to one database.
        database: Only this one; the result is then that of `call` itself.
        grounds: Of a night, see `find_grounds`: databases that lack something are left out.
        side_by_side: ``module:function`` of the same operation, to be run for several databases at the same
            time, each in a process of its own, within the ``jobs`` of the target.
        progress: Told what is going on in which database.

    Raises:
        ConfigError: The target does not look after `database`; or what is configured is in no database.
        StewardError: The databases can't be found. What the operation raises, where it is for one only.
    """
    if database is not None:
        target = bind_covered(target, database)
    if not target.has_several or _has_nothing(step, target):  # which says so, and no server is asked
        return call(with_own_exclusions(target) if step == "backup" else target)
    began = time.monotonic()
    found = find(target)
    lacking = {} if grounds is None else {name: grounds.get(name, NEW) for name in found.names}
    parts = [
        (name, results.skipped(step, target.name, why, blocked=True)) for name, why in lacking.items() if why
    ]
    target = replace(target, used=Used(datetime.now(UTC)))
    bound = [bind(target, name) for name in found.names if not lacking.get(name)]
    bound, idle, findings = narrow(step, bound)
    parts += [(name, results.skipped(step, target.name, why)) for name, why in idle.items()]
    if side_by_side is not None and len(bound) > 1:
        jobs, running = shares(target.settings.backup.jobs, found.free_connections)
        parts += run_side_by_side(
            side_by_side, step, bound, jobs, found.sizes, progress, most_running=running
        )
    else:
        parts += _one_by_one(step, bound, call, progress)
    parts.sort(key=lambda part: found.names.index(part[0]))
    if step == "prune":
        found = replace(found, skipped=(*found.skipped, *_not_pruned(found, stored(target)[0])))
    return merge(step, target.name, parts, found, findings).took(time.monotonic() - began)


def over_stored(
    target: Target, step: str, call: Call, *, database: str | None = None, only_stored: bool = False
) -> StepResult:
    """Run an operation that reads stores only over the databases that have, or should have, backups there.

    It also works while the server is down: then the databases are those of the stores, and the result says
    that the server was not asked.

    Args:
        target: Whose backups.
        step: Name of the operation.
        call: The operation; gets the target bound to one database.
        database: Only this one; it need not be on the server any more.
        only_stored: It makes no sense without a backup: a database that has none in any store is a failure,
            or unknown where a store did not answer.
    """
    if database is not None:
        return call(bind(target, database))
    if not target.has_several:
        return call(target)
    began = time.monotonic()
    there, silent_stores = stored(target)
    try:
        found = find(target)
    except StewardError as exc:
        configured = target.settings.databases
        found = Found(
            () if configured is None or configured == "*" else configured,
            not_asked=(Note("databases of the server", f"could not be asked: {exc}"),),
        )
    names = [name for name in found.names if name in there or not only_stored]
    bound = [bind(target, name) for name in (*names, *sorted(there - set(names)))]
    parts = _one_by_one(step, bound, call, silent)
    bare = [name for name in found.names if name not in names]
    nowhere = "has no backup in any store" + (" that could be asked" if silent_stores else "")
    without = tuple(Note(name, nowhere) for name in bare)
    found = replace(
        found,
        skipped=(*found.skipped, *_not_pruned(found, there)),
        unknown=(*found.unknown, *(without if silent_stores else ())),
        not_asked=(*found.not_asked, *silent_stores),
        failed=(*found.failed, *(() if silent_stores else without)),
    )
    return merge(step, target.name, parts, found).took(time.monotonic() - began)


def find_grounds(needed: Sequence[str], done: Mapping[str, StepResult]) -> dict[str, str] | None:
    """Return, for each database that the needed steps of a night worked on, why it lacks its ground, or "".

    A database that is not in it is new since then, and lacks it as well. None: the target has one only.

    Args:
        needed: Names of the steps that a step needs.
        done: Results so far.
    """
    found: dict[str, str] | None = None
    for name in needed:
        entries = done[name].details.get("databases") if name in done else None
        if entries is None:
            continue
        here = {str(entry["database"]): _lack(name, entry) for entry in entries}
        found = here if found is None else {db: why or here.get(db, NEW) for db, why in found.items()}
    return found


def _lack(step: str, entry: Mapping[str, Any]) -> str:
    if entry["status"] == "failed":
        return f"{step} failed"
    return f"{step} was skipped: {entry['skipped_because']}" if entry.get("blocked") else ""


def shares(configured: int | None, free_connections: int) -> tuple[int, int]:
    """Return how many workers of pg_dump there may be in all, and how many databases at the same time.

    With one worker each, and with what each opens besides, they take no more than half of the free
    connections: none must find the server full because of its neighbours.

    Args:
        configured: ``jobs`` of the target.
        free_connections: How many more sessions the role can open.
    """
    running = min(MAX_RUNNING, capacity.jobs_that_fit(free_connections) // (SESSIONS_BESIDE + 1)) or 1
    return configured or capacity.choose_jobs(free_connections, running * SESSIONS_BESIDE), running


def merge(step: str, target: str, parts: Parts, found: Found, findings: Sequence[Note] = ()) -> StepResult:
    """Return one result for several databases: names carry their database, figures are summed.

    ``details["databases"]`` has one entry per database: its status, its summary and its own details. Lists of
    objects among those (backups, indexes, decisions ...) are joined, with the database in each entry.

    Args:
        step: Name of the step.
        target: Name of the target.
        parts: Results by database.
        found: What was left out.
        findings: What concerns no single database.
    """
    joined: dict[str, list[dict[str, Any]]] = {}
    entries: list[dict[str, Any]] = []
    for name, part in parts:
        entry: dict[str, Any] = {"database": name, "status": part.status, "summary": part.summary}
        if part.status == "skipped" and part.skipped:
            entry |= {"skipped_because": part.skipped[0].reason, "blocked": part.blocked}
        entry |= {"examined": part.examined, "seconds": round(part.seconds, 3)}
        for key, value in part.details.items():
            if key in _JOINED or _is_list_of_objects(value):
                joined.setdefault(key, []).extend({"database": name, **each} for each in value)
            elif key not in entry:
                entry[key] = value
        entries.append(entry)
    entries += [
        {"database": note.object, "status": "failed", "summary": note.reason} for note in found.failed
    ]
    entries += [
        {"database": note.object, "status": "unknown", "summary": note.reason} for note in found.unknown
    ]

    nothing = () if parts or found.failed else (_nothing(target),)

    def notes(kind: str, more: Sequence[Note] = ()) -> tuple[Note, ...]:
        own = [
            Note(_named(db, n.object, target), n.reason) for db, part in parts for n in getattr(part, kind)
        ]
        return (*own, *more)

    return StepResult(
        step=step,
        target=target,
        status=_status([part for _, part in parts], found, findings),
        examined=sum(part.examined for _, part in parts),
        changed=tuple(
            Item(_named(db, item.object, target), item.action, item.facts)
            for db, part in parts
            for item in part.changed
        ),
        skipped=notes("skipped", found.skipped),
        unknown=notes("unknown", (*found.unknown, *(found.not_asked or nothing))),
        failed=notes("failed", found.failed),
        findings=notes("findings", findings),
        summary=_summary(parts, found),
        details={**joined, "databases": entries},
        dry_run=any(part.dry_run for _, part in parts),
    )


def _status(parts: Sequence[StepResult], found: Found, findings: Sequence[Note]) -> Status:
    """Failed when nothing was done for any database; where only some failed or are unknown, partial."""
    ran = [part.status for part in parts if part.status != "skipped"]
    bad = "failed" in ran or found.failed
    if bad and all(status == "failed" for status in ran):
        return "failed"
    if bad or found.unknown or found.not_asked or findings:
        return "partial" if ran else "unknown"
    if not parts:
        return "unknown"
    if not ran:
        return "skipped"
    return ran[0] if len(set(ran)) == 1 else "partial"


def _summary(parts: Parts, found: Found) -> str:
    failed = [name for name, part in parts if part.status == "failed"]
    failed += [note.object for note in found.failed]
    if len(parts) == 1 and not (found.failed or found.unknown):
        return f"{parts[0][0]}: {parts[0][1].summary}"
    counted = {
        "done": [name for name, part in parts if part.status == "ok"],
        "not as a whole": [name for name, part in parts if part.status == "partial"],
        "failed": failed,
        "unknown": [name for name, part in parts if part.status == "unknown"]
        + [note.object for note in found.unknown],
        "skipped": [name for name, part in parts if part.blocked],
        "with nothing to do": [name for name, part in parts if part.status == "skipped" and not part.blocked],
    }
    clauses = [
        f"{len(names)} {word}" + ("" if word in ("done", "with nothing to do") else f" ({', '.join(names)})")
        for word, names in counted.items()
        if names
    ]
    total = len(parts) + len(found.failed) + len(found.unknown)
    return f"{plural(total, 'database')}: {', '.join(clauses)}" if clauses else "No database was found"


def _nothing(target: str) -> Note:
    return Note(target, "its server has no database that it looks after; see databases and exclude_databases")


def _named(database: str, name: str, target: str) -> str:
    return database if name in (database, target) else f"{database}: {name}"


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(e, Mapping) for e in value)


def _not_pruned(found: Found, there: Iterable[str]) -> tuple[Note, ...]:
    """Name the databases whose backups nobody prunes any more."""
    if not found.on_server:  # which was not asked
        return ()
    known = {*found.names, *(note.object for note in (*found.unknown, *found.failed))}
    return tuple(Note(name, LEFT if name in found.on_server else GONE) for name in sorted(set(there) - known))


def _one_by_one(step: str, bound: Sequence[Target], call: Call, progress: Progress) -> Parts:
    """Call an operation for one database after the other.

    Raises:
        ConfigError: Every database got this same one: the configuration is wrong, not a database.
    """
    parts: Parts = []
    misuse: list[ConfigError] = []
    for target in bound:
        progress(f"{step} {target.database}", len(parts), len(bound))
        began = time.monotonic()
        try:
            part = call_with_retries(call, target)
        except TimeoutError:  # that of a flow's task: the whole step is over
            raise
        except Exception as exc:  # the next database must get its turn; the error is kept
            log.log(
                logging.ERROR,
                "%s of %s failed: %s",
                step,
                target.database,
                exc,
                exc_info=not isinstance(exc, StewardError),
            )
            part = results.failure(step, target.name, exc, time.monotonic() - began)
            misuse += [exc] if isinstance(exc, ConfigError) else []
        parts.append((target.database, part))
    if misuse and len(misuse) == len(parts) and len({str(each) for each in misuse}) == 1:
        raise misuse[0]
    return parts


def narrow(step: str, bound: Sequence[Target]) -> tuple[list[Target], dict[str, str], tuple[Note, ...]]:
    """Leave to each database only those tables and indexes of the configuration that it has.

    One that has nothing a step looks at has nothing to do: an empty database among others is not unknown. One
    that can't be asked keeps everything: its own call says what is wrong.

    Args:
        step: Name of the operation.
        bound: The target, bound to each database.

    Returns:
        The targets that have something to do, why the others have nothing, and required indexes that no
        database has.

    Raises:
        ConfigError: No database has a table of ``[[sessions]]``, or one that rows are not wanted of.
    """
    if step == "backup":
        return _with_own_exclusions(bound, each_somewhere=True), {}, ()
    if step in ("sessions", "vacuum"):
        having, lacking = _with_own_tables(bound)
        if step == "vacuum" and any(target.settings.vacuum.guard for target in bound):
            return [*having, *(_without_tables(one) for one in bound if one.database in lacking)], {}, ()
        return having, lacking, ()
    findings: tuple[Note, ...] = ()
    if step == "indexes":
        bound, findings = _with_own_indexes(bound)
    what = _LOOKS_AT.get(step)
    busy: list[Target] = []
    idle: dict[str, str] = {}
    for target in bound:
        there = None if what is None else _ask(target, _contents)
        if what is None or there is None or what in there or (step == "indexes" and _is_told(target)):
            busy.append(target)
        else:
            idle[target.database] = f"there are no {what} in this database"
    return busy, idle, findings


def _has_nothing(step: str, target: Target) -> bool:
    """Tell whether a step is only about the tables of ``[[sessions]]``, and there is none."""
    alone = step == "sessions" or (step == "vacuum" and not target.settings.vacuum.guard)
    return alone and not target.settings.sessions


def _with_own_tables(bound: Sequence[Target]) -> tuple[list[Target], dict[str, str]]:
    wanted = [entry.table for target in bound[:1] for entry in target.settings.sessions]
    has = {target.database: _ask(target, lambda t: _tables_there(t, wanted)) for target in bound}
    nowhere = _in_none(wanted, has.values())
    if nowhere and None not in has.values():
        names = ", ".join(has)
        raise ConfigError(
            "\n".join(
                f"none of the databases {names} has a table {table}; correct the name" for table in nowhere
            )
        )
    busy: list[Target] = []
    idle: dict[str, str] = {}
    for target in bound:
        tables = has[target.database]
        own = tuple(e for e in target.settings.sessions if tables is None or e.table in tables)
        if own:
            busy.append(replace(target, settings=target.settings.model_copy(update={"sessions": own})))
        else:
            idle[target.database] = "it has none of the tables of [[sessions]]"
    return busy, idle


def with_own_exclusions(target: Target) -> Target:
    """Leave to one of several databases what `narrow` leaves to it of ``exclude_table_data``."""
    is_one_of_several = target.settings.databases is not None
    return _with_own_exclusions([target], each_somewhere=False)[0] if is_one_of_several else target


def _with_own_exclusions(bound: Sequence[Target], *, each_somewhere: bool) -> list[Target]:
    """Leave to each database those of ``exclude_table_data`` that match a table there."""
    wanted = bound[0].settings.backup.exclude_table_data if bound else ()
    if not wanted:
        return list(bound)
    has = {target.database: _ask(target, lambda t: _excluded(t, wanted)) for target in bound}
    if each_somewhere and None not in has.values() and (nowhere := _in_none(wanted, has.values())):
        raise ConfigError(
            f"backup.exclude_table_data: {', '.join(map(repr, nowhere))} matches no table of any of the"
            f" databases {', '.join(has)}; correct it, or take it out"
        )
    narrowed: list[Target] = []
    for target in bound:
        there = has[target.database]
        own = tuple(pattern for pattern in wanted if there is None or pattern in there)
        backup = target.settings.backup.model_copy(update={"exclude_table_data": own})
        narrowed.append(replace(target, settings=target.settings.model_copy(update={"backup": backup})))
    return narrowed


def _excluded(target: Target, wanted: Sequence[str]) -> set[str]:
    with connect(target.login("backup"), purpose="find tables", statement_timeout_s=60) as session:
        return matching(wanted, session)


def _without_tables(target: Target) -> Target:
    return replace(target, settings=target.settings.model_copy(update={"sessions": ()}))


def _is_told(target: Target) -> bool:
    """Tell whether an audit has something to look for, also where there is no index."""
    audit = target.settings.index_audit
    return bool(audit.required or audit.constraints or audit.alembic)


def _with_own_indexes(bound: Sequence[Target]) -> tuple[list[Target], tuple[Note, ...]]:
    """Leave to each database the requirements that concern it; what concerns none is missing in every one."""
    from pgsteward.index_audit import requirements_there  # no other step pays for the import

    if not bound:
        return [], ()
    wanted = bound[0].settings.index_audit
    has = {target.database: _ask(target, requirements_there) for target in bound}
    narrowed: list[Target] = []
    for target in bound:
        there = has[target.database]
        own = {
            "required": tuple(each for each in wanted.required if there is None or each in there),
            "constraints": tuple(each for each in wanted.constraints if there is None or each in there),
            "alembic": wanted.alembic if there is None or wanted.alembic in there else None,
        }
        audit = target.settings.index_audit.model_copy(update=own)
        narrowed.append(replace(target, settings=target.settings.model_copy(update={"index_audit": audit})))
    missing = "this required index is missing in every database; the application's migration creates it"
    unheard = "its table is in none of the databases; correct the name"
    notes = [Note(label_of(each), missing) for each in _in_none(wanted.required, has.values())]
    notes += [Note(each.label, unheard) for each in _in_none(wanted.constraints, has.values())]
    if wanted.alembic and _in_none([wanted.alembic], has.values()):
        notes.append(Note(wanted.alembic.script_location, "no database has its version table"))
    return narrowed, tuple(notes)


def _ask(target: Target, question: Callable[[Target], set[T]]) -> set[T] | None:
    try:
        return question(target)
    except StewardError as exc:
        log.warning("%s could not be asked: %s", target.database, exc)
        return None


def _contents(target: Target) -> set[str]:
    with connect(target.login("maintenance"), purpose="find tables", statement_timeout_s=60) as session:
        row = session.row(sql.load("database_contents"))
    return {what for what, there in row.items() if there}


def _tables_there(target: Target, wanted: Sequence[str]) -> set[str]:
    with connect(target.login("maintenance"), purpose="find tables", statement_timeout_s=60) as session:
        return {name for name in wanted if find_relation(session, name) is not None}


def _in_none(wanted: Sequence[T], sets: Iterable[Collection[object] | None]) -> list[T]:
    there = {each for found in sets if found is not None for each in found}
    return [each for each in dict.fromkeys(wanted) if each not in there]
