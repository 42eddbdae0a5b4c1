"""Drills: a backup is restored from its store, looked at from all sides, and thrown away.

Green is what was restored as a whole and is equal; red is what is not what was backed up; and what could not
be tried is unknown: never green, and never a mismatch.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pgsteward.backup import freeze
from pgsteward.backup.globals_sql import GLOBALS
from pgsteward.backup.listing import list_manifests, refuse_removed
from pgsteward.backup.newest import is_ahead, newest
from pgsteward.backup.receipts import proven, read_receipts
from pgsteward.errors import (
    ConfigError,
    DamagedBackup,
    PreconditionError,
    StewardError,
    ToolFailed,
    VerificationFailed,
)
from pgsteward.postgres import Connection, connect
from pgsteward.progress import Progress, silent
from pgsteward.report.units import humanize_bytes, humanize_seconds, plural
from pgsteward.restore import blank, drill_roles, scratch
from pgsteward.restore.drill_checks import (
    check_indexes,
    compare_schemas,
    foreign_matviews,
    run_checks,
)
from pgsteward.restore.forecast import Forecast, Point, look_ahead
from pgsteward.restore.found import Found, find_backup
from pgsteward.restore.load import fill_matviews, load, load_triggers
from pgsteward.restore.outcome import Comparison, Order, Phases, Ready, leave_receipt
from pgsteward.restore.partial import make_schemas
from pgsteward.restore.run import (
    affordable_jobs,
    begin_download,
    compare_restored,
    evidence_of_manifest,
    not_equal,
    prepare,
)
from pgsteward.restore.statistics import analyze
from pgsteward.restore.throwaway import remove_dead_servers, throwaway_server
from pgsteward.restore.verdict import shows_damage
from pgsteward.results import Item, Note, Status, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP: Final = "drill"
RECOVERY = ("fetch", "create", "load", "matviews", "analyze", "compare")
"""Phases that a real recovery would take too."""
_ROOM = 1.1
_SURROUNDINGS = re.compile(r"No space left|could not write|out of memory|not supported by this build")
"""Words of a machine that lacks something itself, before the load: no fault of the backup."""

Colour = Literal["green", "red", "unknown"]


@dataclass(slots=True)
class _Found:
    """What one drill found out so far."""

    wrong: list[Note] = field(default_factory=list)
    unknown: list[Note] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    findings: list[Note] = field(default_factory=list)
    compared: Comparison | None = None
    server: str = ""
    schema_equal: bool | None = None
    indexes: int | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    session_settings: Mapping[str, str] | None = None
    receipt: str | None = None
    told: bool = False
    """The store was asked to keep a receipt."""

    @property
    def colour(self) -> Colour:
        if self.wrong:
            return "red"
        whole = self.compared is not None and self.compared.equal is True
        return "green" if whole and not self.unknown else "unknown"


def drill(
    target: Target,
    what: str = "latest",
    *,
    store: str | None = None,
    on_server: bool = False,
    jobs: int | None = None,
    progress: Progress = silent,
) -> StepResult:
    """Restore a backup from its store into a throwaway server, compare it, and leave a receipt.

    Args:
        target: Whose backup.
        what: As for a restore: ``latest``, ``latest-proven`` or a backup id.
        store: Take it from this store; None takes the first one that has it.
        on_server: Restore into a scratch database on the server of the ``restore`` login instead.
        jobs: Sessions that load at the same time.
        progress: Is told what happens.

    Returns:
        ``details["verdict"]`` is ``green`` (status ``ok``, or ``partial`` with something to see to), ``red``
        (``failed``) or ``unknown`` (``unknown``), which leaves no receipt.

    Raises:
        ConfigError: `what` is no backup's id, or the configuration is wrong.
    """
    began = time.monotonic()
    removed, left = remove_dead_servers()
    for folder in removed:
        log.info("Removed the server of a dead drill: %s", folder)
    found = _Found(skipped=left)
    phases = Phases()
    here: Found | None = None
    try:
        progress("looking for the backup")
        with phases.phase("preflight"), evidence_of_manifest(target, what, store, False, STEP):
            here = find_backup(target, what, store)
        _try(target, here, found, phases, on_server, jobs, progress)
    except ConfigError:
        raise
    except DamagedBackup as exc:
        found.wrong.append(Note(here.manifest.backup_id if here else what, str(exc)))
    except VerificationFailed as exc:
        what_failed = Note(here.manifest.backup_id if here else what, str(exc))
        if here is None or _SURROUNDINGS.search(str(exc)):
            found.unknown.append(what_failed)
        else:
            found.wrong.append(what_failed)
    except StewardError as exc:
        found.unknown.append(Note(here.manifest.backup_id if here else target.database, str(exc)))
    if here is not None and found.colour != "green":
        _forget_if_removed(target, here, found)
    if here is not None and found.wrong and not found.told:
        _leave_damage(target, here, found)
    return _result(target, here, found, phases, time.monotonic() - began)


def _forget_if_removed(target: Target, here: Found, found: _Found) -> None:
    """Let nothing be wrong with a backup that was removed while it was looked at."""
    try:
        refuse_removed(here.store, target.name, here.manifest)
    except PreconditionError as exc:
        found.wrong.clear()
        found.unknown[:] = [Note(here.manifest.backup_id, str(exc))]


def _leave_damage(target: Target, here: Found, found: _Found) -> None:
    """Leave a red receipt of a drill that found something wrong and did not come to its end."""
    backup_id = here.manifest.backup_id
    said = [
        note.reason if note.object == backup_id else f"{note.object}: {note.reason}" for note in found.wrong
    ]
    found.unknown += freeze.leave_damage(here.store, target, backup_id, STEP, said)


def _try(
    target: Target,
    here: Found,
    found: _Found,
    phases: Phases,
    on_server: bool,
    jobs: int | None,
    progress: Progress,
) -> None:
    manifest = here.manifest
    run_id = secrets.token_hex(6)
    stamp = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
    with ExitStack() as stack:
        with phases.phase("server"):
            if on_server:
                admin = scratch.admin_login(target.login("restore"))
                stack.enter_context(scratch.restore_lock(admin))
                where = "the restore login's"
            else:
                progress("starting a server")
                major = manifest.server.version_num // 10_000
                room = int(manifest.database_bytes * _ROOM)
                dirs = target.settings.client_dirs
                in_place = manifest.encryption is None and here.store.local_folder(
                    here.prefix_in(target.name)
                )
                download = 0 if in_place else manifest.size_bytes
                admin = stack.enter_context(throwaway_server(run_id, major, dirs, room, download)).login()
                where = "a throwaway one"
        order = Order(
            target=target,
            found=here,
            admin=admin,
            into=scratch.fit_name(target.database, f"_drill_{stamp}"),
            replaces=False,
            jobs=jobs or target.settings.backup.jobs or affordable_jobs(admin),
            run_id=run_id,
            stamp=stamp,
            progress=progress,
            phases=phases,
            no_tablespaces=not on_server,
        )
        session = stack.enter_context(connect(admin, purpose=STEP, lock_timeout_s=30))
        found.server = f"{session.server_version // 10_000}.{session.server_version % 10_000}, {where}"
        with phases.phase("preflight"):
            order, ready = prepare(order, session, stack, roles_are_made=not on_server)
        found.session_settings = ready.session_settings
        found.skipped += [
            Note(check.name, f"{check.says}; {check.fix}" if check.fix else check.says)
            for check in ready.checks
            if check.go == "warning" and check.name != "roles"  # those are made here
        ]
        begin_download(order, ready, ahead=GLOBALS)
        found.findings += drill_roles.try_script(session, ready, run=not on_server)
        if not on_server:
            drill_roles.make_rest(session, ready)
        with phases.phase("create"):
            name = _create(session, order, ready, stack)
        if not on_server:  # a role's name is kept in the bytes of the database that it was made from
            with connect(admin.to(name), purpose=STEP) as inside:
                drill_roles.make_rest(inside, ready)
        _look_at(order, ready, session, name, found, stack, on_server)


def _create(session: Connection, order: Order, ready: Ready, stack: ExitStack, *, suffix: str = "") -> str:
    """Create an empty database as the dumped one was, and drop it at the end.

    Raises:
        PreconditionError: This server lacks its locale.
    """
    try:
        name = blank.create(order, ready, session, suffix=suffix)
    except PreconditionError:
        raise
    except StewardError as exc:
        raise PreconditionError(f"the database can't be created as the dumped one was: {exc}") from exc
    stack.callback(_drop, session, name)
    return name


def _drop(session: Connection, name: str) -> None:
    with contextlib.suppress(StewardError):  # the janitor drops it by its mark; a throwaway server is gone
        scratch.drop(session, name)


@contextlib.contextmanager
def _loading(on_server: bool) -> Iterator[None]:
    """Let a load that failed say nothing about the backup, but for words that only damage explains.

    A server that lacks room, rights or a library, or whose administrator ended us, says so in any language.

    Raises:
        DamagedBackup: Its archive can't be read, or its rows are none.
        PreconditionError: It could not be loaded for any other reason, or on a server that is not our own.
    """
    try:
        yield
    except DamagedBackup:
        raise
    except (VerificationFailed, ToolFailed) as exc:
        if not on_server and shows_damage(str(exc)):
            raise DamagedBackup(str(exc)) from exc
        raise PreconditionError(
            f"it could not be loaded here, which says nothing about its bytes: {exc}"
        ) from exc


def _look_at(
    order: Order,
    ready: Ready,
    session: Connection,
    name: str,
    found: _Found,
    stack: ExitStack,
    on_server: bool,
) -> None:
    """Load the backup and look at it from all sides."""
    phases = order.phases
    make_schemas(order, ready, name)
    with _loading(on_server):
        verdict = load(order, ready, name)
        verdict = fill_matviews(order, ready, name, verdict, foreign_matviews(order.admin.to(name)))
    verdict, not_analyzed = analyze(order, name, verdict)
    with phases.phase("compare"):
        compared = found.compared = compare_restored(order, name, verdict)
    found.wrong += [Note(each.object, each.what) for each in compared.differences]
    found.unknown += [Note(*pair) for pair in compared.not_examined]
    if compared.level == "none":
        found.unknown.append(Note(order.into, "the backup has no proof (proof = none): nothing was compared"))
    with phases.phase("indexes"):
        found.indexes = check_indexes(order, name, found.wrong, found.unknown, found.skipped)
    with _loading(on_server):
        verdict = load_triggers(order, ready, name, verdict)
    with phases.phase("schema"):
        second = _create(session, order, ready, stack, suffix="_schema")
        make_schemas(order, ready, second)
        found.schema_equal = compare_schemas(order, ready, name, second, verdict, found.wrong, found.unknown)
    with phases.phase("checks"):
        found.checks = run_checks(order, name, found.wrong, found.unknown)
    found.findings += [Note(each.object, each.reason) for each in verdict.degraded]
    found.skipped += [Note(each.object, each.reason) for each in verdict.benign if each.matview]
    found.skipped += not_analyzed
    found.skipped += [
        Note(each, "left out: it would act on other servers") for each in ready.archive.left_out
    ]
    if found.colour == "unknown":
        return
    said = [f"{note.object}: {note.reason}" for note in found.wrong[len(compared.differences) :]]
    found.told = True
    left = leave_receipt(order, session, compared, verdict, what=STEP, wrong=said)
    found.receipt = left["receipt"]
    if left["receipt_error"]:
        found.unknown.append(Note("receipt", f"could not be written: {left['receipt_error']}"))
    if compared.differences:
        log.warning("%s", not_equal(order, compared))


def _result(target: Target, here: Found | None, found: _Found, phases: Phases, seconds: float) -> StepResult:
    colour = found.colour
    statuses: Mapping[Colour, Status] = {"green": "ok", "red": "failed", "unknown": "unknown"}
    status = statuses[colour]
    unknown = list(found.unknown)
    if colour == "green" and (found.findings or (here is not None and here.notes)):
        status = "partial"
    if here is not None:
        unknown += here.notes
    recovery = sum(phases.seconds.get(each, 0.0) for each in RECOVERY)
    whole = found.compared is not None
    forecast, point_at = (
        _look_ahead(target, here.store, recovery if whole else None) if here else (None, None)
    )
    compared = found.compared
    changed: tuple[Item, ...] = ()
    if here is not None and colour != "unknown":
        facts = {"verdict": colour, "bytes": here.manifest.size_bytes, "seconds": round(recovery, 3)}
        changed = (Item(here.manifest.backup_id, "drilled", facts),)
    return StepResult(
        step=STEP,
        target=target.name,
        status=status,
        examined=compared.relations + compared.views if compared else 0,
        changed=changed,
        skipped=tuple(found.skipped),
        unknown=tuple(unknown),
        failed=tuple(found.wrong),
        findings=tuple(found.findings),
        seconds=seconds,
        summary=_summary(here, found, recovery),
        details={
            "verdict": colour,
            "backup_id": here.manifest.backup_id if here else None,
            "database": target.database,
            "store": here.store.name if here else None,
            "server": found.server or None,
            "proof": None
            if compared is None
            else {
                "level": compared.level,
                "relations": compared.relations,
                "rows": compared.rows,
                "equal": compared.equal,
            },
            "schema_equal": found.schema_equal,
            "indexes_checked": found.indexes,
            "drill_checks": found.checks,
            "session_settings": found.session_settings,
            "receipt": found.receipt,
            "bytes": here.manifest.size_bytes if here else None,
            "database_bytes": here.manifest.database_bytes if here else None,
            "recovery_seconds": round(recovery, 3) if whole else None,
            "recovery_point_at": point_at.isoformat() if point_at else None,
            "recovery_point_seconds": round((datetime.now(UTC) - point_at).total_seconds())
            if point_at
            else None,
            "forecast": forecast.as_json() if forecast else None,
            "phases": dict(phases.seconds),
        },
    )


def _look_ahead(
    target: Target, store: Store, recovery_seconds: float | None
) -> tuple[Forecast | None, datetime | None]:
    """Return what a month from now will be like, and when the newest proven backup saw the database."""
    try:
        manifests, _ = list_manifests(store, target.name, target.database)
        receipts, _ = read_receipts(store, target.name, target.database)
    except StewardError:
        return None, None
    good = proven(receipts)
    now = datetime.now(UTC)
    whole = [manifest for manifest in manifests if not manifest.partial and not is_ahead(manifest, now)]
    last = newest((manifest for manifest in whole if manifest.backup_id in good), now)
    points = [Point(m.started_at, m.size_bytes, m.database_bytes) for m in whole]
    return look_ahead(points, recovery_seconds), last.started_at if last is not None else None


def _summary(here: Found | None, found: _Found, recovery: float) -> str:
    if found.colour == "unknown" or here is None:
        first = found.unknown[0] if found.unknown else (found.wrong or [Note("", "nothing was compared")])[0]
        return f"The drill could not be done: {first.reason}"
    name = f"Backup {here.manifest.backup_id} in store {here.store.name}"
    if found.colour == "red":
        first = found.wrong[0]
        more = f"; and {len(found.wrong) - 1} more" if len(found.wrong) > 1 else ""
        return f"{name} is NOT what was backed up: {quote(first)}{more}"
    assert found.compared is not None
    checks = f", {plural(len(found.checks), 'check')} true" if found.checks else ""
    indexes = f", {plural(found.indexes, 'index', 'indexes')} checked" if found.indexes is not None else ""
    return (
        f"{name} is proven: {plural(found.compared.relations, 'table')} and {found.compared.rows:,} rows"
        f" equal{indexes}{checks}; {humanize_bytes(here.manifest.size_bytes)} were back in"
        f" {humanize_seconds(recovery)}"
    )


def quote(note: Note) -> str:
    """Return a note as one clause."""
    return note.reason if note.object in note.reason else f"{note.object}: {note.reason}"
