"""Back up one database: dump and proof from one snapshot, hashes of every file, manifest last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

from pgsteward import results
from pgsteward.backup import archive, completeness, owed, readme
from pgsteward.backup.anomalies import history, unlikely
from pgsteward.backup.beside import Beside
from pgsteward.backup.dump_errors import LockRefused, Rewritten
from pgsteward.backup.encryption import Recipients, read_recipients
from pgsteward.backup.files import BackupFiles
from pgsteward.backup.forms import described, make_archive, refuse_small_spool
from pgsteward.backup.globals_sql import GLOBALS, compress, globals_sql
from pgsteward.backup.home import home_store, mark, past_stores, unfinished
from pgsteward.backup.identity import identify, remember
from pgsteward.backup.lock_watch import NOTABLE_S, GivenWay
from pgsteward.backup.manifest import MANIFEST, Manifest, Server, new_backup_id
from pgsteward.backup.moving import marked
from pgsteward.backup.plan import SESSIONS_BESIDE, Plan, make_plan
from pgsteward.backup.proof import list_relations
from pgsteward.backup.proof_gaps import NO_SELECT, NOT_POPULATED, ON_PURPOSE, not_examined, proof_facts
from pgsteward.backup.published import lacking, refuse_gone
from pgsteward.backup.room import reserved
from pgsteward.backup.send_ahead import sending_ahead
from pgsteward.backup.snapshot_dump import Dumped
from pgsteward.backup.trust import trusted
from pgsteward.clients import find_clients
from pgsteward.errors import StoreFailed, StoreUnavailable, ToolFailed, TransientError, VerificationFailed
from pgsteward.interlock import dump_is_over, let_builds_finish
from pgsteward.postgres import Connection
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.report.units import humanize_bytes, plural
from pgsteward.results import Item, Note, StepResult
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Snapshots tried in a row when tables are rewritten while the dump starts, or somebody wants a lock."""
PAUSES_S = (2.0, 10.0)
"""How long whoever wants a lock is left alone before the next attempt."""


def back_up(
    target: Target, *, dry_run: bool = False, progress: Progress = silent, send_ahead: bool = False
) -> StepResult:
    """Dump one database into its home store, with a proof taken in the dump's own snapshot.

    Args:
        target: Whose database.
        dry_run: Check everything that can be checked beforehand, and dump nothing.
        progress: Is told what is going on.
        send_ahead: Files go to the other stores as soon as each is finished: an upload follows.

    Raises:
        PreconditionError: Refused before anything started: rights, client, pooler, another run.
        TransientError: Tables are being rewritten, locks are held, the connection was lost.
        ToolFailed: pg_dump ended badly. No part of the backup is left behind.
    """
    began = time.monotonic()
    with (
        Beside("clients", lambda wanted: find_clients(target.settings.client_dirs, wanted)) as clients,
        operation_lock(target.login("backup"), "backup") as session,
        ExitStack() as stack,
    ):
        recipients = _recipients(target)
        if dry_run:
            identify(target, home_store(target))
        else:
            trusted(target, home_store(target), progress)
        plan = make_plan(target, session.pinned(), session, clients.result)
        short = stack.enter_context(reserved(target, plan.home, plan.room))
        plan = replace(plan, warnings=(*plan.warnings, *short))
        refuse_small_spool(plan, recipients)
        if dry_run:
            return _would_back_up(plan, session).took(time.monotonic() - began)
        beside = let_builds_finish(session, target.settings.backup.lock_wait_timeout_s, progress)
        plan = replace(plan, warnings=(*plan.warnings, *beside))
        retried: list[str] = []
        while True:
            try:
                done = _attempt(plan, session, recipients, progress, send_ahead=send_ahead)
            except (Rewritten, LockRefused, GivenWay) as exc:
                retried.append(str(exc))
                if len(retried) == ATTEMPTS:
                    raise
                log.warning("%s; trying again with a new snapshot", exc)
                if not isinstance(exc, Rewritten):
                    time.sleep(PAUSES_S[len(retried) - 1])
                if isinstance(exc, LockRefused) and len(retried) == ATTEMPTS - 1:
                    plan = replace(plan, jobs=1)  # it locks each table once, at the start
            else:
                remember(target, plan.home)
                if send_ahead:
                    _note_copies(target, plan.home, str(done.details["backup_id"]))
                return replace(done, details={**done.details, "retried": retried}).took(
                    time.monotonic() - began
                )


def _note_copies(target: Target, home: Store, backup_id: str) -> None:
    """Note down which stores are to get it: by the time of the upload another machine's may be the newest."""
    for name in target.settings.stores:
        if name != home.name:
            owed.begin(target, name, backup_id)


def _recipients(target: Target) -> Recipients | None:
    """Return whom to encrypt to, tried out before anything is dumped."""
    if not target.settings.backup.encrypt_to:
        return None
    recipients = read_recipients(target.settings.backup.encrypt_to)
    log.info("the backup of %s is encrypted to %s", target.database, ", ".join(recipients.texts))
    return recipients


def _would_back_up(plan: Plan, session: Connection) -> StepResult:
    tables = [row for row in list_relations(session, "none") if row["kind"] != "f"]
    facts = {"database_bytes": plan.server["database_bytes"], "tables": len(tables)}
    return StepResult(
        step="backup",
        target=plan.target.name,
        status=results.judge(examined=len(tables) + 1),
        examined=len(tables) + 1,
        changed=(Item(plan.target.database, "would back up", facts),),
        summary=f"Would dump {plan.target.database} with pg_dump {plan.client.text} into {plan.home.name}",
        details={
            "client_version": plan.client.text,
            "compress": plan.compress,
            "stores": [plan.home.name],
            **plan.figures,
        },
        dry_run=True,
    )


def _wrote_versions(plan: Plan) -> str:
    return (
        f"pg_dump {plan.client.text} has written down what the server alone should know of its columns"
        " (pg_attver), and a server that does not know of it refuses such tables; the pg_dump of the"
        f" server's own release, {plan.server['version'].split()[0]}, leaves it out"
    )


def _attempt(
    plan: Plan, lock: Connection, recipients: Recipients | None, progress: Progress, *, send_ahead: bool
) -> StepResult:
    started_at = datetime.now(UTC)
    clock = time.monotonic()
    backup_id = new_backup_id(started_at)
    target, client = plan.target, plan.client
    ours = mark(plan.owner, backup_id, started_at)
    with (
        unfinished(plan.home, target.name, target.database, backup_id, ours) as prefix,
        sending_ahead(plan if send_ahead else None, prefix, ours) as ahead,
        _described_beside(plan, lock, files := BackupFiles(plan.home, prefix, recipients)) as asked,
    ):
        dumped = make_archive(plan, files, prefix, progress)
        _still_locked(lock)
        dump_is_over(lock)
        contents, entries = dumped.contents, dumped.contents.entries
        decode = archive.decoder(lock, plan.server["encoding"])
        proof = marked(dumped.proof, lock.rows(load("proof_moving"))).model_copy(
            update={
                "sequences": archive.positions(contents.sequence_script, entries, decode),
                "schema_sha256": contents.schema_sha256,
            }
        )
        roles, uncovered = asked()
        unknown = list(roles.unknown)
        encryption = described(plan, recipients)
        checking = time.monotonic()
        form = target.settings.backup.form
        files.settle(progress)
        seconds = {
            **dumped.seconds,
            "hash": round(files.hashing_s + time.monotonic() - checking, 3),
            "total": round(time.monotonic() - clock, 3),
        }
        absent = completeness.absent(dumped.relations, archive.data_oids(entries), plan.server["in_recovery"])
        absent += [*dumped.left_out, *roles.left_out]
        if not (target.settings.backup.tables or target.settings.backup.schemas):
            absent += [*completeness.hidden_mappings(lock), *completeness.never_dumped(lock)]
        unknown += _not_watched(dumped)
        warnings = (
            *plan.warnings,
            *([_wrote_versions(plan)] if contents.has_versions else []),
            *dumped.stderr,
            *(waiter.sentence for waiter in dumped.lock_waiters if waiter.seconds >= NOTABLE_S),
            *(f"{note.object}: {note.reason}" for note in unknown),
        )
        manifest = Manifest(
            format_version=2 if form == "stream" or encryption or plan.partial else 1,
            backup_id=backup_id,
            target=target.name,
            database=target.database,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            pgsteward_version=version("pgsteward"),
            server=Server.model_validate(plan.server),
            client_version=client.text,
            arguments=dumped.arguments,
            compress=plan.compress,
            jobs=plan.jobs if form == "directory" else 1,
            snapshot_id=dumped.snapshot_id,
            snapshot_lsn=dumped.lsn,
            snapshot_at=dumped.snapshot_at,
            database_bytes=plan.server["database_bytes"],
            extensions=plan.server["extensions"],
            files=files.stored,
            proof=proof,
            not_in_dump=tuple(f"{note.object}: {note.reason}" for note in absent),
            warnings=warnings,
            seconds=seconds,
            mode=form,
            encryption=encryption,
            partial=plan.partial,
            uncovered_databases=uncovered,
            role_passwords=roles.passwords,
        )
        odd, not_asked = _anomalies(plan, manifest)
        unknown += not_asked
        manifest = manifest.model_copy(
            update={
                "anomalies": tuple(f"{note.object}: {note.reason}" for note in odd),
                "warnings": (*manifest.warnings, *(f"{note.object}: {note.reason}" for note in not_asked)),
            }
        )
        _refuse_without_contents(manifest)
        _still_locked(lock)
        refuse_gone(plan.home, prefix, ours, lacking(plan.home, prefix, manifest.files))
        data = manifest.to_bytes()
        plan.home.put_bytes(prefix + MANIFEST, data)
    plan.earlier.keep(manifest, data)
    found = [*completeness.findings(dumped.stderr), *odd]
    done = _result(plan, manifest, absent, unknown, found)
    waiters = [waiter.as_json() for waiter in dumped.lock_waiters]
    return replace(
        done, details={**done.details, "lock_waiters": waiters, "sent_ahead": ahead.bytes_by_store}
    )


def _refuse_without_contents(manifest: Manifest) -> None:
    """Make sure that the archive itself is among the files that were stored and hashed.

    Raises:
        VerificationFailed: It is not; the backup is not published.
    """
    if not any(file.path == manifest.contents for file in manifest.files):
        raise VerificationFailed(
            f"{manifest.contents} is not among the {len(manifest.files)} files of the backup, so it is not"
            " published; look after the disk of the home store, and run the backup again"
        )


def _still_locked(lock: Connection) -> None:
    """Make sure that nobody could have taken us for dead.

    Raises:
        TransientError: The lock's session is over: a janitor may have removed what we made.
    """
    try:
        lock.execute("SELECT 1")
    except TransientError as exc:
        raise type(exc)(
            f"the session that held the backup's lock is over, so the backup is not published: {exc}; the"
            " server's log says who ended it; run the backup again"
        ) from exc


def _not_watched(dumped: Dumped) -> list[Note]:
    if dumped.not_watched is None:
        return []
    return [Note("locks", f"who waits behind the dump was not watched all the time: {dumped.not_watched}")]


@dataclass(frozen=True, slots=True)
class _Roles:
    """The script of roles and tablespaces, and what became of it."""

    script: bytes | None = None
    passwords: bool = False
    left_out: tuple[Note, ...] = ()
    unknown: tuple[Note, ...] = ()


@contextmanager
def _described_beside(
    plan: Plan, lock: Connection, files: BackupFiles
) -> Iterator[Callable[[], tuple[_Roles, tuple[str, ...]]]]:
    """Store roles, tablespaces and RESTORE.md beside the dump, and ask for uncovered databases.

    It is done after the dump where the server has no room for one more session.
    """

    def ask(still_wanted: Callable[[], None] | None = None) -> tuple[_Roles, tuple[str, ...]]:
        roles = _globals(plan, encrypted=files.recipients is not None, still_wanted=still_wanted)
        if roles.script is not None:
            files.put_beside(GLOBALS, compress(roles.script))
        text = _restore_md(plan, files, role_passwords=roles.passwords)
        files.put_beside(readme.NAME, text, clear=True)
        return roles, tuple(completeness.uncovered(plan.target, lock))

    if plan.free_connections <= SESSIONS_BESIDE + plan.jobs:
        yield ask
        return
    with Beside("globals", ask) as asked:
        yield asked.result


def _globals(plan: Plan, *, encrypted: bool, still_wanted: Callable[[], None] | None = None) -> _Roles:
    """Return the script of roles and tablespaces; without passwords where the server keeps them to itself."""
    asked_for = plan.target.settings.backup.role_passwords
    refusal = None
    if asked_for or encrypted:
        try:
            script = globals_sql(plan.client, plan.login, passwords=True, still_wanted=still_wanted)
        except ToolFailed as exc:
            log.warning("the passwords of roles are not in the backup: %s", exc)
            refusal = Note("passwords of roles", f"not in the backup: {exc}")
        else:
            return _Roles(script, passwords=True)
    try:
        script = globals_sql(plan.client, plan.login, still_wanted=still_wanted)
    except ToolFailed as exc:
        log.warning("roles and tablespaces are not in the backup: %s", exc)
        return _Roles(unknown=(Note("roles and tablespaces", f"not in the backup: {exc}"),))
    if refusal is None:
        return _Roles(script)
    return _Roles(script, unknown=(refusal,)) if asked_for else _Roles(script, left_out=(refusal,))


def _anomalies(plan: Plan, manifest: Manifest) -> tuple[list[Note], list[Note]]:
    """Return what earlier backups make unlikely, and why that could not be looked at."""
    try:
        for store in past_stores(plan.target, plan.home):
            before = history(store, plan.earlier, plan.target.name, plan.target.database)
            if before:
                return unlikely(before, manifest), []
    except (StoreUnavailable, StoreFailed) as exc:
        return [], [Note("earlier backups", f"could not be read, so nothing is known to be unlikely: {exc}")]
    return [], []


def _restore_md(plan: Plan, files: BackupFiles, *, role_passwords: bool) -> bytes:
    folder = files.prefix.rstrip("/")
    return readme.text(
        plan.target.database,
        folder.rpartition("/")[2],
        folder=folder,
        client_version=plan.client.text,
        mode=plan.target.settings.backup.form,
        encryption=described(plan, files.recipients),
        role_passwords=role_passwords,
        schemas=plan.schemas_to_make,
    ).encode()


def _result(
    plan: Plan, manifest: Manifest, absent: list[Note], unknown: list[Note], findings: list[Note]
) -> StepResult:
    proof = manifest.proof
    missing = [Note(name, reason) for name, reason in not_examined(proof)]
    skipped = [note for note in absent if "holds no rows" not in note.reason]
    skipped += [note for note in missing if note.reason in (NOT_POPULATED, NO_SELECT)]
    unknown += [note for note in absent if "holds no rows" in note.reason]
    unknown += [note for note in missing if note.reason not in ON_PURPOSE]
    examined = sum(relation.not_examined is None for relation in proof.tables) + 1
    facts = {
        "bytes": manifest.size_bytes,
        "files": len(manifest.files),
        "rows": proof.rows,
        "seconds": manifest.seconds["total"],
    }
    return StepResult(
        step="backup",
        target=plan.target.name,
        status=results.judge(examined=examined, unknown=unknown, findings=findings),
        examined=examined,
        changed=(Item(manifest.backup_id, "dumped", facts),),
        skipped=tuple(skipped),
        unknown=tuple(unknown),
        findings=tuple(findings),
        summary=_summary(manifest, plan.home),
        details={
            "backup_id": manifest.backup_id,
            "bytes": manifest.size_bytes,
            "files": len(manifest.files),
            "proof": proof_facts(proof),
            "stores": [plan.home.name],
            "database_bytes": manifest.database_bytes,
            "client_version": manifest.client_version,
            "compress": manifest.compress,
            "mode": manifest.mode,
            "encrypted_to": list(manifest.encryption.recipients) if manifest.encryption else [],
            "partial": list(manifest.partial),
            "not_in_dump": list(manifest.not_in_dump),
            "uncovered_databases": list(manifest.uncovered_databases),
            "anomalies": list(manifest.anomalies),
            "role_passwords": manifest.role_passwords,
            "warnings": list(manifest.warnings),
            "phases": manifest.seconds,
        },
    )


def _summary(manifest: Manifest, home: Store) -> str:
    size = f"{humanize_bytes(manifest.size_bytes)} in {plural(len(manifest.files), 'file')}"
    counted = f"{plural(manifest.proof.rows, 'row')} of {plural(len(manifest.proof.relations), 'relation')}"
    proof = {
        "full": f"{counted} counted and hashed",
        "counts": f"{counted} counted",
        "none": "without proof",
    }[manifest.proof.level]
    encrypted = ", encrypted" if manifest.encryption else ""
    partial = f"; it is partial ({'; '.join(manifest.partial)})" if manifest.partial else ""
    return f"Backup {manifest.backup_id} is complete in {home.name}: {size}{encrypted}, {proof}{partial}"
