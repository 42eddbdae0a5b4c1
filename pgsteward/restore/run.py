"""Restore on demand: beside the original, compared, and only then under its final name."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from pgsteward import capacity, sql
from pgsteward.backup import freeze
from pgsteward.backup.archive import decoder
from pgsteward.backup.listing import read_manifest, refuse_removed
from pgsteward.backup.proof import read_sequences, take_proof
from pgsteward.backup.proof_compare import Difference, compare
from pgsteward.backup.receipts import What
from pgsteward.backup.stream_dump import ArchiveHead
from pgsteward.errors import (
    DamagedBackup,
    DatabaseUnavailable,
    PreconditionError,
    StewardError,
    ToolFailed,
    VerificationFailed,
)
from pgsteward.postgres import Connection, Login, connect
from pgsteward.postgres_names import split_qualified
from pgsteward.progress import Progress, silent
from pgsteward.restore import (
    blank,
    cluster,
    data_only,
    fetch,
    pace,
    parts,
    preflight,
    replaced,
    roles,
    scratch,
    swap,
)
from pgsteward.restore.arriving import Arriving
from pgsteward.restore.checks import Check, refuse
from pgsteward.restore.drill_checks import compare_schemas
from pgsteward.restore.found import find_backup
from pgsteward.restore.hidden_rows import uncovered
from pgsteward.restore.load import fill_matviews, load, load_triggers
from pgsteward.restore.outcome import STEP, Comparison, Order, Phases, Ready, done, leave_receipt, planned
from pgsteward.restore.partial import expected_sequences, make_schemas, refuse_replacing
from pgsteward.restore.properties import read_properties
from pgsteward.restore.scope import Scope
from pgsteward.restore.statistics import analyze
from pgsteward.restore.surroundings import read_archive
from pgsteward.restore.verdict import Verdict
from pgsteward.results import Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

WHOLE = Scope()


def restore(
    target: Target,
    what: str = "latest",
    *,
    store: str | None = None,
    as_of: datetime | None = None,
    into: str | None = None,
    replace: bool = False,
    confirm_database: str | None = None,
    jobs: int | None = None,
    dry_run: bool = False,
    keep_failed: bool = False,
    create_roles: bool = False,
    no_tablespaces: bool = False,
    scope: Scope = WHOLE,
    progress: Progress = silent,
) -> StepResult:
    """Restore a backup into a new database, or in the place of the old one, and compare it with its proof.

    Args:
        target: Whose backup; its ``restore`` login says which server.
        what: ``latest``, ``latest-proven`` or a backup id.
        store: Restore from this store; None takes the first one that has the backup.
        as_of: The newest that saw the database not after this moment.
        into: Name of the new database; ``<database>_restore_<stamp>`` when None. With data-only, of one that
            is there.
        replace: Take the place of the database of the target's name, which is kept as
            ``<database>_before_<stamp>``.
        confirm_database: The name of the database to replace, once more; a dry run does without.
        jobs: Sessions that load at the same time; as many as the backup's configuration says when None, or as
            server and machine can take where it says nothing.
        dry_run: Stop after the preflight.
        create_roles: Create the roles first that the backup knows and the server lacks.
        no_tablespaces: Put everything into the database's own tablespace.
        scope: Which part of the backup; nothing in it means all.
        keep_failed: Leave a database that is not whole under its scratch name, for a look at it.
        progress: Is told what happens.

    Raises:
        PreconditionError: A no-go; nothing was changed.
        VerificationFailed: A stored file, or the restored database, is not what was backed up.
    """
    began = time.monotonic()
    now = datetime.now(UTC)
    if jobs is not None and jobs < 1:
        raise PreconditionError("jobs must be 1 or more")
    parts.refuse(scope, replaces=replace, into=into, makes=create_roles or no_tablespaces)
    final = _final_name(target, into, replace, confirm_database, dry_run, f"{now:%Y%m%d%H%M%S}")
    phases = Phases()
    progress("looking for the backup")
    with phases.phase("preflight"), evidence_of_manifest(target, what, store, dry_run):
        found = find_backup(target, what, store, as_of=as_of)
        if replace:
            refuse_replacing(found.manifest)
        admin = scratch.admin_login(target.login("restore"))
        if replace and admin.dbname == final:
            raise PreconditionError(
                f"restores work from the database {final!r}, and can't replace it; use --into"
            )
    order = Order(
        target=target,
        found=found,
        admin=admin,
        into=final,
        replaces=replace,
        jobs=jobs or target.settings.backup.jobs or affordable_jobs(admin),
        run_id=secrets.token_hex(6),
        stamp=f"{now:%Y%m%d%H%M%S}",
        progress=progress,
        phases=phases,
        as_of=as_of,
        create_roles=create_roles,
        no_tablespaces=no_tablespaces,
        scope=scope,
    )
    with evidence_of_damage(order, dry_run), ExitStack() as stack:
        lock = stack.enter_context(scratch.restore_lock(admin))
        session = stack.enter_context(connect(admin, purpose=STEP, lock_timeout_s=30))
        with phases.phase("preflight"):
            order, ready = prepare(order, session, stack)
        if dry_run:
            return planned(order, ready, time.monotonic() - began)
        if scope.data_only:
            return _fill(order, ready, began)
        return _restore(order, ready, lock, session, keep_failed, began)


@contextlib.contextmanager
def evidence_of_damage(order: Order, dry_run: bool) -> Iterator[None]:
    """Leave a red receipt where stored bytes are not what was written; a dry run leaves nothing anywhere."""
    try:
        yield
    except (VerificationFailed, ToolFailed) as exc:
        store, manifest = order.found.store, order.manifest
        refuse_removed(store, order.target.name, manifest)
        if isinstance(exc, DamagedBackup) and not dry_run:
            _leave_damage(store, order.target, manifest.backup_id, exc)
        raise


def _leave_damage(
    store: Store, target: Target, backup_id: str, exc: DamagedBackup, work: What = STEP
) -> None:
    for note in freeze.leave_damage(store, target, backup_id, work, [str(exc)]):
        log.warning("%s %s", note.object, note.reason)


@contextlib.contextmanager
def evidence_of_manifest(
    target: Target, what: str, store: str | None, dry_run: bool, work: What = STEP
) -> Iterator[None]:
    """The same for the manifest of a backup that was named by its id."""
    try:
        yield
    except DamagedBackup:
        for place in [target.store(store)] if store is not None else target.stores():
            try:
                read_manifest(place, target.name, target.database, what)
            except DamagedBackup as exc:
                if not dry_run:
                    _leave_damage(place, target, what, exc, work)
            except (StewardError, FileNotFoundError):
                continue
        raise


def affordable_jobs(admin: Login) -> int:
    """Return how many sessions may load at the same time where nobody has said so."""
    with connect(admin, purpose=STEP) as session:
        return capacity.choose_jobs(capacity.free_connections(session), beside=3)


def _final_name(
    target: Target, into: str | None, replace: bool, confirm_database: str | None, dry_run: bool, stamp: str
) -> str:
    database = target.database
    if not replace:
        if confirm_database is not None:
            raise PreconditionError("confirm_database only goes with replace; leave it out or add replace")
        return into or scratch.fit_name(database, f"_restore_{stamp}")
    if into not in (None, database):
        raise PreconditionError(f"replace takes the place of {database!r}; leave into={into!r} out")
    if confirm_database != database and not (dry_run and confirm_database is None):
        said = "nothing was given" if confirm_database is None else f"{confirm_database!r} was given"
        raise PreconditionError(
            f"replacing a database asks for its name twice, and {said}: repeat it as confirm_database"
            f" (on the command line: --replace --confirm-database {database})"
        )
    return database


def prepare(
    order: Order, session: Connection, stack: ExitStack, *, roles_are_made: bool = False
) -> tuple[Order, Ready]:
    """Check everything that can be checked; of a remote store only the table of contents is read for that.

    Args:
        order: What to restore.
        session: To the admin database.
        stack: Ends what is begun here.
        roles_are_made: All that the archive names will be made before anything is loaded.

    Returns:
        The order, narrowed down to the part that is wanted, and what was found out.
    """
    store, manifest = order.found.store, order.manifest
    fetch.check_presence(store, order.prefix, manifest)
    identities = fetch.identities_for(order.target, store, order.prefix, manifest)
    local = store.local_folder(order.prefix) if identities is None else None
    folder = local or stack.enter_context(fetch.spool(order.run_id))
    listed = [file for file in manifest.files if file.path == manifest.contents]
    if not listed:
        raise VerificationFailed(
            f"backup {manifest.backup_id} lists no {manifest.contents}: it is no archive of pg_dump"
        )
    client = preflight.choose(order.target, manifest, session.server_version)
    contents = folder / manifest.archive
    if local is not None:
        fetch.fetch(store, order.prefix, manifest, listed, None)
    elif manifest.mode == "directory":
        fetch.fetch(store, order.prefix, manifest, listed, folder, identities=identities)
    else:
        head = stack.enter_context(ArchiveHead(client))
        fetch.fetch_head(store, order.prefix, manifest, identities, head)
        contents = head.path
    part = parts.choose(order, client, session, contents)
    order = parts.narrowed(order, part)
    manifest = order.manifest
    if local is not None:
        order.progress("checking the stored files")
        fetch.fetch(store, order.prefix, manifest, manifest.files, None, order.progress)
    decode = decoder(session, manifest.server.encoding)
    archive = read_archive(client, contents, decode, None if part is None else part.numbers)
    script = None
    new_roles = sorted(archive.roles) if roles_are_made else None
    if order.create_roles:
        file = roles.stored_script(manifest)
        if local is None:
            fetch.fetch(store, order.prefix, manifest, [file], folder, identities=identities)
        script = roles.read_script(folder, session)
        new_roles = [role.name for role in script.missing(roles.existing(session))]
    spool = None if local is not None else folder
    if order.scope.data_only:
        checks = preflight.examine_rows(session, manifest, client, into=order.into, spool=spool)
        if all(check.go != "no-go" for check in checks):
            checks.append(data_only.examine(order))
    else:
        checks = preflight.examine(
            session,
            manifest,
            archive,
            client,
            into=order.into,
            replaces=order.replaces,
            jobs=order.jobs,
            spool=spool,
            no_tablespaces=order.no_tablespaces,
            copies=2 if order.scope.bare else 1,
            new_roles=new_roles,
        )
    checks.append(
        cluster.examine(
            manifest,
            session.value(sql.load("server_cluster")),
            order.target.settings.previous_clusters,
            order.found.seen,
            replaces=order.replaces,
        )
    )
    where = f"in {store.location}"
    if local is not None:
        checks.append(
            Check("files", "go", f"all {len(manifest.files)} are {where}, every byte was read again")
        )
    else:
        checks.append(Check("files", "go", f"all {len(manifest.files)} are {where}, in their full size"))
    refuse(checks)
    arriving = None
    if local is None:
        arriving = stack.enter_context(
            Arriving(store, order.prefix, manifest, folder, identities, order.progress)
        )
    settings = {**pace.choose(session, order.jobs), **session.language}
    return order, Ready(client, archive, tuple(checks), folder, arriving, script, settings)


def begin_download(order: Order, ready: Ready, *, ahead: str | None = None) -> None:
    """Let the files come that are not here, while `load` begins; one stream has to be here as a whole.

    Args:
        order: What to restore.
        ready: What the preflight found out.
        ahead: A file that is here afterwards, if the backup has it.
    """
    if order.manifest.mode == "stream":
        fetch_files(order, ready)
    elif ready.arriving is not None:
        if ahead is not None:
            ready.arriving.bring(ahead)
        ready.arriving.begin()


def fetch_files(order: Order, ready: Ready) -> None:
    """Bring the files here that are not; every byte is checked."""
    if ready.arriving is not None:
        with order.phases.phase("fetch"):
            ready.arriving.begin()
            ready.arriving.wait_for_all()


def _fill(order: Order, ready: Ready, began: float) -> StepResult:
    fetch_files(order, ready)
    compared, kept = data_only.fill(order, ready)
    extras: dict[str, Any] = {
        "open_to_public": None,
        "receipt": None,
        "receipt_error": None,
        "not_analyzed": [],
    }
    result = done(order, ready, Verdict(), compared, extras, time.monotonic() - began)
    return dataclasses.replace(result, skipped=(*result.skipped, *kept))


def _restore(
    order: Order, ready: Ready, lock: Connection, session: Connection, keep_failed: bool, began: float
) -> StepResult:
    phases = order.phases
    made = roles.Made()
    if ready.roles is None:
        begin_download(order, ready)
    else:
        fetch_files(order, ready)  # roles stay when a restore fails, so every byte is checked before
        with phases.phase("roles"):
            made = roles.create_missing(session, ready.roles)
    properties = read_properties(session, order.target.database)
    with phases.phase("create"):
        name = blank.create(order, ready, session)
    whole = False
    try:
        with _before_the_swap(order):
            make_schemas(order, ready, name)
            verdict = fill_matviews(order, ready, name, load(order, ready, name))
            verdict, not_analyzed = analyze(order, name, verdict)
            with phases.phase("compare"):
                compared = compare_restored(order, name, verdict)
            verdict = load_triggers(order, ready, name, verdict)
            if order.scope.schema_only:
                compared = _with_schema(order, ready, session, name, verdict, compared)
            receipt = leave_receipt(order, session, compared, verdict)
            if compared.differences:
                raise VerificationFailed(not_equal(order, compared))
            lock.execute("SELECT 1")  # raises when the lock is gone: somebody may think that we are dead
        with phases.phase("swap"):
            details = _publish(order, ready, session, name, properties)
        whole = True
    finally:
        if not whole and not keep_failed:
            scratch.discard(session, name)
    extras = {**details, **receipt, "not_analyzed": not_analyzed}
    return done(order, ready, verdict, compared, extras, time.monotonic() - began, made)


def _with_schema(
    order: Order, ready: Ready, session: Connection, name: str, verdict: Verdict, compared: Comparison
) -> Comparison:
    """Compare the schema too, with that of a second restore, which is thrown away."""
    wrong: list[Note] = []
    unknown: list[Note] = []
    with order.phases.phase("compare"):
        second = blank.create(order, ready, session, suffix="_schema")
        try:
            make_schemas(order, ready, second)
            compare_schemas(order, ready, name, second, verdict, wrong, unknown)
        finally:
            scratch.discard(session, second)
    return dataclasses.replace(
        compared,
        differences=(*compared.differences, *(Difference(note.object, note.reason) for note in wrong)),
        not_examined=(*compared.not_examined, *((note.object, note.reason) for note in unknown)),
    )


@contextlib.contextmanager
def _before_the_swap(order: Order) -> Iterator[None]:
    """Say of a session that was lost meanwhile what that means, which it can't know itself."""
    try:
        yield
    except DatabaseUnavailable as exc:
        what = f"{order.into} is as it was" if order.replaces else f"there is no {order.into}"
        raise DatabaseUnavailable(
            f"{exc}; a session was ended or cut (the server's log says more), and {what}: restore again"
        ) from exc


def compare_restored(order: Order, name: str, verdict: Verdict) -> Comparison:
    """Compare a restored database with the proof; what pg_restore's messages explain is told apart."""
    expected = order.manifest.proof
    level = expected.level
    if level == "none":
        return Comparison(level)
    login = order.admin.to(name)
    with uncovered(login, STEP):
        actual = take_proof(
            login,
            level,
            snapshot_id=None,
            method=expected.method,
            progress=order.progress,
            sessions=order.jobs,
        )
    actual = actual.model_copy(update={"sequences": read_sequences(login)})
    actual = expected_sequences(order.manifest, actual)
    empty = {split_qualified(matview) for matview in verdict.empty_matviews}
    differences: list[Difference] = []
    explained: list[Difference] = []
    for difference in compare(expected, actual):
        is_empty = _split(difference.object) in empty
        (explained if is_empty else differences).append(difference)
    return Comparison.of(expected, actual, differences, explained)


def _split(name: str) -> tuple[str, str] | None:
    try:
        return split_qualified(name)
    except ValueError:
        return None


def not_equal(order: Order, compared: Comparison) -> str:
    listed = "; ".join(map(str, compared.differences[:5]))
    more = len(compared.differences) - 5
    return f"the restored database is not what backup {order.manifest.backup_id} holds: {listed}" + (
        f"; and {more} more" if more > 0 else ""
    )


def _publish(
    order: Order, ready: Ready, session: Connection, name: str, properties: Mapping[str, Any] | None
) -> dict[str, Any]:
    if order.replaces:
        before = replaced.free_name(session, order.into, f"_before_{order.stamp}")
        undone = scratch.fit_name(order.into, f"_undone_{order.stamp}")
        order.progress(f"replacing {order.into}")
        # Looked at again: hours may have passed since the preflight.
        what = f"the restored database is equal, and can't take the place of {order.into}"
        refuse(preflight.replaceable(session, order.into), what)
        comment = properties["comment"] if properties is not None else None
        swap.replace_database(
            order.admin, session, name, order.into, lambda: replaced.put_aside(session, order.into, before)
        )
        undo = swap.undo_sql(order.into, before, undone, comment)
        return {"replaced": before, "undo": undo, "open_to_public": None}
    is_open = not ready.archive.closed if properties is None else bool(properties["open_to_public"])
    comment = f"Restored by pgsteward from backup {order.manifest.backup_id} of {order.target.database}"
    swap.publish(order.admin, session, name, order.into, open_to_public=is_open, comment=comment)
    return {"replaced": None, "undo": None, "open_to_public": is_open}
