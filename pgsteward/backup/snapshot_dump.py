"""One run of pg_dump with the proof beside it, both in one exported snapshot."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgsteward import postgres
from pgsteward.backup.destination import Destination
from pgsteward.backup.manifest import Proof
from pgsteward.backup.proof import take_proof
from pgsteward.config import BackupConfig
from pgsteward.errors import QueryFailed, ToolFailed, TransientError
from pgsteward.pgtools import Client, RunningTool, start_tool, tool_env
from pgsteward.postgres import Login, Row
from pgsteward.progress import Progress
from pgsteward.sql import load

_TRANSIENT = re.compile(
    "could not obtain lock|canceling statement due to (lock timeout|statement timeout|conflict with recovery)"
    '|invalid snapshot identifier|snapshot "[^"]*" does not exist|server closed the connection'
    "|terminating connection|connection to server .* failed|the database system is|too many clients"
    '|remaining connection slots|relation "[^"]*" does not exist|could not open relation|SSL SYSCALL'
    "|no connection to the server|could not receive data from server"
)


class Rewritten(TransientError):
    """A table was rewritten between snapshot and lock: the dump would hold it empty."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """What came out of one run of pg_dump and the proof beside it."""

    proof: Proof
    relations: list[Row]
    snapshot_id: str
    lsn: str | None
    arguments: tuple[str, ...]
    stderr: tuple[str, ...]
    seconds: dict[str, float]


def dump_and_prove(
    client: Client, login: Login, settings: BackupConfig, spec: str, into: Destination, progress: Progress
) -> Dumped:
    """Run pg_dump and take the proof in the same snapshot.

    Args:
        client: Its pg_dump is run.
        login: The database.
        settings: Jobs, level of the proof, how long locks are waited for.
        spec: Compression that this client can do: ``zstd:1``.
        into: Where the archive goes.
        progress: Is told what is going on.

    Raises:
        Rewritten: A table is another one than in the snapshot; try again with a new one.
        TransientError: Locks, lost connections, a snapshot that is gone.
        ToolFailed: pg_dump ended badly.
    """
    began = time.monotonic()
    with _exported_snapshot(login) as (snapshot_id, lsn):
        arguments = (
            *into.arguments(settings.jobs),
            _compress_argument(client, spec),
            f"--snapshot={snapshot_id}",
            f"--lock-wait-timeout={int(settings.lock_wait_timeout_s * 1000)}",
            "--no-password",
        )
        argv: list[str | Path] = [client.tool("pg_dump"), *arguments]
        argv += [*into.file_argument(), f"--dbname={login.conninfo}"]
        with start_tool(argv, env=tool_env(login, "dump"), take_stdout=into.take_stdout) as tool:
            with _as_dump_error():
                try:
                    relations = _wait_for_locks(login, tool, into, snapshot_id, progress)
                    proof = take_proof(
                        login,
                        settings.proof,
                        snapshot_id=snapshot_id,
                        max_seconds=settings.proof_max_seconds,
                        progress=progress,
                        still_wanted=lambda: _refuse_dead(tool),
                        lock_timeout_s=settings.lock_wait_timeout_s,
                    )
                except (QueryFailed, TransientError):
                    _refuse_dead(tool)  # when both fail, pg_dump's own words say why
                    raise
                output = tool.wait(_reporter(login.dbname, into, progress))
    seconds = {"dump_and_proof": round(time.monotonic() - began, 3), "proof": proof.seconds}
    return Dumped(proof, relations, snapshot_id, lsn, arguments, output.stderr_lines, seconds)


@contextmanager
def _exported_snapshot(login: Login) -> Iterator[tuple[str, str | None]]:
    """Hold a snapshot for others to import, on a session that no timeout may end."""
    settings = {"idle_in_transaction_session_timeout": "0"}
    with postgres.connect(login, purpose="snapshot", settings=settings) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot_id = str(holder.value("SELECT pg_export_snapshot()"))
        lsn = holder.value(load("backup_lsn"))
        yield snapshot_id, lsn
        # closed without COMMIT: once everybody has imported the snapshot, losing this session is harmless


def _wait_for_locks(
    login: Login, tool: RunningTool, into: Destination, snapshot_id: str, progress: Progress
) -> list[Row]:
    """Wait until the dump holds its locks; then refuse a snapshot in which a table is already another one."""
    progress(f"waiting for the locks of pg_dump on {login.dbname}")
    while not into.has_begun():
        _refuse_dead(tool)
        if tool.poll() is not None:
            break
        time.sleep(0.01)
    with postgres.connect(login, purpose="backup check") as connection:
        with connection.snapshot(snapshot_id):
            rewritten = connection.rows(load("snapshot_rewritten"))
            relations = connection.rows(load("proof_relations"))
    if rewritten:
        names = ", ".join(postgres.quote_name(row["schema_name"], row["name"]) for row in rewritten[:5])
        raise Rewritten(
            f"rewritten, truncated or renamed while the dump started, so that it would miss rows: {names}"
        )
    return relations


def _refuse_dead(tool: RunningTool) -> None:
    """Raise what killed the dump, or what keeps its output from being taken, if something did."""
    tool.refuse_untaken()
    if tool.poll() not in (None, 0):
        tool.wait()


@contextmanager
def _as_dump_error() -> Iterator[None]:
    """Tell what may heal by itself from what won't."""
    try:
        yield
    except ToolFailed as exc:
        if _TRANSIENT.search(str(exc)):
            raise TransientError(str(exc)) from exc
        hint = ""
        if "permission denied" in str(exc):
            hint = "; `pgsteward doctor` prints the missing GRANT"
        elif "out of shared memory" in str(exc) or "max_locks_per_transaction" in str(exc):
            hint = "; raise max_locks_per_transaction"
        elif "No space left" in str(exc):
            hint = "; free space in the home store or name another folder"
        raise ToolFailed(f"{exc}{hint}") from exc


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
