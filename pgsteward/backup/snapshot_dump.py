"""One run of pg_dump with the proof beside it, both in one exported snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgsteward import postgres
from pgsteward.backup import archive, filters
from pgsteward.backup.archive import Contents
from pgsteward.backup.beside import Abandoned, Beside
from pgsteward.backup.destination import Destination
from pgsteward.backup.dump_errors import LOCK_REFUSED, Rewritten, as_dump_error
from pgsteward.backup.filters import Choice, Part
from pgsteward.backup.lock_watch import LockWatch, Waiter
from pgsteward.backup.manifest import Proof
from pgsteward.backup.proof import list_relations, take_proof
from pgsteward.backup.redefined import read_in_rows, refuse_changed, refuse_redefined
from pgsteward.clients import Client
from pgsteward.config import BackupConfig
from pgsteward.errors import QueryFailed, ToolFailed, TransientError
from pgsteward.pgtools import RunningTool, start_tool, tool_env
from pgsteward.postgres import Connection, Login, Row
from pgsteward.progress import Progress
from pgsteward.results import Note
from pgsteward.sql import load


@dataclass(frozen=True, slots=True)
class Dumped:
    """What came out of one run of pg_dump and the proof beside it.

    Attributes:
        contents: What pg_restore says about it.
        snapshot_at: Just after the snapshot was taken.
        relations: Those that the dump is to hold, as the snapshot saw them.
        left_out: What the configuration left out.
        lock_waiters: Who had to wait behind the dump.
        not_watched: Why that is not known, or not to the end.
    """

    proof: Proof
    contents: Contents
    relations: list[Row]
    snapshot_id: str
    lsn: str | None
    snapshot_at: datetime
    arguments: tuple[str, ...]
    stderr: tuple[str, ...]
    seconds: dict[str, float]
    left_out: tuple[Note, ...] = ()
    lock_waiters: tuple[Waiter, ...] = ()
    not_watched: str | None = None


def dump_and_prove(
    client: Client,
    login: Login,
    settings: BackupConfig,
    spec: str,
    into: Destination,
    progress: Progress,
    *,
    jobs: int,
    encoding: str,
    when_read: Callable[[Contents], None],
    when_dumped: Callable[[Callable[[], None]], None] | None = None,
) -> Dumped:
    """Run pg_dump and take the proof in the same snapshot.

    Args:
        client: Its pg_dump is run.
        login: The database.
        settings: Level of the proof, what is left out, how long locks are waited for.
        spec: Compression that this client can do: ``zstd:1``.
        into: Where the archive goes.
        progress: Is told what is going on.
        jobs: Workers of pg_dump.
        encoding: The database's own, which the archive shall have too, whatever the client's is set to.
        when_read: Called in another thread with the archive's contents, while the rows are on their way;
            once more if they were written again.
        when_dumped: Likewise, once pg_dump has ended well, while the proof may go on. It gets
            what it has to call now and then.

    Raises:
        Rewritten: A table, or a definition, is another one than in the snapshot; try again with a new one.
        LockRefused: Somebody asked for a table between two workers; try again after a while.
        GivenWay: Somebody has waited for too long behind the dump; try again after a while.
        TransientError: Locks, lost connections, a snapshot that is gone.
        ToolFailed: pg_dump ended badly.
    """
    began = time.monotonic()
    with (
        LockWatch(login, settings.yield_after, settings.lock_wait_timeout_s) as watch,
        as_dump_error(watch, into.contents),
        _exported_snapshot(login) as (snapshot_id, lsn, holder),
    ):
        snapshot_at = datetime.now(UTC)
        choice = filters.choose(settings, holder) if filters.has_filters(settings) else None
        arguments = (
            *into.arguments(jobs),
            _compress_argument(client, spec),
            f"--snapshot={snapshot_id}",
            f"--lock-wait-timeout={math.ceil(settings.lock_wait_timeout_s * 1000)}",
            f"--encoding={encoding}",
            *filters.arguments(settings, () if choice is None else choice.extensions),
            "--no-password",
        )
        argv: list[str | Path] = [client.tool("pg_dump"), *arguments]
        argv += [*into.file_argument(), f"--dbname={login.conninfo}"]

        def hear(line: str) -> None:
            if LOCK_REFUSED in line:  # whoever is to blame may be gone in a moment
                watch.look_now()

        with (
            start_tool(
                argv,
                env=tool_env(login, "dump", holder.language),
                on_stderr=hear,
                take_stdout=into.take_stdout,
            ) as tool,
            ExitStack() as stack,
        ):

            def still_wanted() -> None:
                _refuse_dead(tool)
                _give_way(tool, watch)

            try:
                progress(f"waiting for the locks of pg_dump on {login.dbname}")
                with _in_snapshot(login, snapshot_id) as session:
                    relations = list_relations(session, settings.proof)
                    _wait_for_locks(tool, into, still_wanted)
                    _refuse_rewritten(session, [row for row in relations if _has_rows(row, choice)])
                    refuse_redefined(session, login, choice)
                    in_rows = read_in_rows(session, choice)
                archived = stack.enter_context(
                    Beside(
                        "archive",
                        lambda wanted: _archived(client, into, tool, when_read, when_dumped, wanted),
                    )
                )
                part = _part(client, choice, into, tool, still_wanted)
                proof = take_proof(
                    login,
                    settings.proof,
                    snapshot_id=snapshot_id,
                    max_seconds=settings.proof_max_seconds,
                    progress=progress,
                    still_wanted=still_wanted,
                    lock_timeout_s=settings.lock_wait_timeout_s,
                    relations=relations,
                    part=part,
                    row_security=settings.enable_row_security,
                )
            except (QueryFailed, TransientError):
                _refuse_dead(tool)  # when both fail, pg_dump's own words say why
                raise
            report = _reporter(login.dbname, into, progress)

            def each_moment() -> None:
                _give_way(tool, watch)
                report()

            output = tool.wait(each_moment)
            holder.close()  # hashing may take long: VACUUM shall not wait for it
            refuse_changed(in_rows, login)
            contents = archived.result()
    seconds = {"dump_and_proof": round(time.monotonic() - began, 3), "proof": proof.seconds}
    return Dumped(
        proof,
        contents,
        relations if part is None else [row for row in relations if part.holds(row)],
        snapshot_id,
        lsn,
        snapshot_at,
        arguments,
        output.stderr_lines,
        seconds,
        left_out=() if part is None else tuple(part.left_out(relations)),
        lock_waiters=tuple(watch.waiters),
        not_watched=watch.blind,
    )


@contextmanager
def _exported_snapshot(login: Login) -> Iterator[tuple[str, str | None, Connection]]:
    """Hold a snapshot for others to import, on a session that no timeout may end."""
    settings = {"idle_in_transaction_session_timeout": "0"}
    with postgres.connect(login, purpose="snapshot", settings=settings) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot_id = str(holder.value("SELECT pg_export_snapshot()"))
        lsn = holder.value(load("backup_lsn"))
        yield snapshot_id, lsn, holder
        # closed without COMMIT: once everybody has imported the snapshot, losing this session is harmless


def _wait_for_locks(tool: RunningTool, into: Destination, still_wanted: Callable[[], None]) -> None:
    """Wait until the dump holds all its locks."""
    while not into.has_begun():
        still_wanted()
        if tool.poll() is not None:
            return
        time.sleep(0.01)


@contextmanager
def _in_snapshot(login: Login, snapshot_id: str) -> Iterator[Connection]:
    patient = {"idle_in_transaction_session_timeout": "0"}
    with postgres.connect(login, purpose="backup check", settings=patient) as session:
        with session.snapshot(snapshot_id):
            yield session


def _has_rows(row: Row, choice: Choice | None) -> bool:
    """Tell whether a dump is to hold rows of a relation."""
    if row["extension_name"] is not None and row["condition"] is None:
        return False
    return choice is None or choice.holds(row)


def _refuse_rewritten(session: Connection, dumped: Sequence[Row]) -> None:
    """Make sure that each dumped table is still the one that the snapshot sees.

    Raises:
        Rewritten: One is another by now.
    """
    names = {row["oid"]: postgres.quote_name(row["schema_name"], row["name"]) for row in dumped}
    rewritten = session.rows(load("rewritten"), {"oids": list(names)})
    if rewritten:
        listed = ", ".join(names[row["oid"]] for row in rewritten[:5])
        raise Rewritten(
            f"rewritten, truncated or renamed while the dump started, so that it would miss rows: {listed}"
        )


def _archived(
    client: Client,
    into: Destination,
    tool: RunningTool,
    when_read: Callable[[Contents], None],
    when_dumped: Callable[[Callable[[], None]], None] | None,
    still_wanted: Callable[[], None],
) -> Contents:
    """Read the archive's contents as soon as they are written; do what is to be done then, and at the end."""
    pause_s = 0.005
    while True:
        ended, stamp = tool.over, into.contents_stamp()
        try:
            contents = archive.read(client, into.contents, still_wanted)
            break
        except ToolFailed:  # cut off: the rest is still on its way
            if ended:
                raise
        tool.wait_briefly(pause_s)
        time.sleep(0.005)
        still_wanted()
        pause_s = min(1.0, pause_s * 1.5)
    when_read(contents)
    while not tool.over:
        tool.wait_briefly(0.2)
        if tool.poll() is not None:
            time.sleep(0.005)
        still_wanted()
    if tool.poll() != 0:
        raise Abandoned  # whoever waits for pg_dump says why
    if into.contents_stamp() != stamp:
        contents = archive.read(client, into.contents, still_wanted)
        when_read(contents)
    if when_dumped is not None:
        when_dumped(still_wanted)
    return contents


def _part(
    client: Client,
    choice: Choice | None,
    into: Destination,
    tool: RunningTool,
    still_wanted: Callable[[], None],
) -> Part | None:
    """Ask the archive of a filtered dump what it will hold, as soon as its contents are written."""
    if choice is None:
        return None
    pause_s = 0.05
    while True:
        if ended := tool.poll() is not None:
            tool.wait()
        try:
            return Part.of(archive.entries(client, into.contents), choice)
        except ToolFailed:  # cut off: the rest is still on its way
            if ended:
                raise
        still_wanted()
        time.sleep(pause_s)
        pause_s = min(1.0, pause_s * 1.5)


def _refuse_dead(tool: RunningTool) -> None:
    """Raise what killed the dump, or what keeps its output from being taken, if something did."""
    tool.refuse_untaken()
    if tool.poll() not in (None, 0):
        tool.wait()


def _give_way(tool: RunningTool, watch: LockWatch) -> None:
    """Give way to who waits behind the dump; one that has ended is in nobody's way, and is kept."""
    if tool.poll() is None:
        watch.check()


def _reporter(database: str, into: Destination, progress: Progress) -> Callable[[], None]:
    """Return what tells how many bytes the dump has written: once a second, or for a 20th of the time."""
    due = 0.0

    def report() -> None:
        nonlocal due
        began = time.monotonic()
        if began >= due:
            progress(f"dumping {database}", into.bytes_written())
            ended = time.monotonic()
            due = ended + max(1.0, 20 * (ended - began))

    return report


def _compress_argument(client: Client, spec: str) -> str:
    """Return the option as this client understands it: before 16 there was only gzip, by level."""
    codec, _, level = spec.partition(":")
    if client.version[0] >= 16:
        return f"--compress={spec}"
    return "--compress=0" if codec == "none" else f"--compress={level or 6}"
