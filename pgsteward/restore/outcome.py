"""What one restore is about, and what comes out of it: the shapes, the receipt and the result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pgsteward import results
from pgsteward.backup.freeze import tell_others
from pgsteward.backup.listing import refuse_removed
from pgsteward.backup.manifest import Manifest, Proof
from pgsteward.backup.proof_compare import Difference, compared_level, not_compared
from pgsteward.backup.receipts import Compared, Receipt, What, write_receipt
from pgsteward.clients import Client
from pgsteward.errors import StewardError, ToolFailed
from pgsteward.postgres import Connection, Login
from pgsteward.progress import Progress
from pgsteward.report.units import plural
from pgsteward.restore import choice, cluster
from pgsteward.restore.arriving import Arriving
from pgsteward.restore.checks import Check, as_json, expected_failures
from pgsteward.restore.found import Found
from pgsteward.restore.roles import Made, Script
from pgsteward.restore.scope import Scope
from pgsteward.restore.selection import Part
from pgsteward.restore.surroundings import Archive
from pgsteward.restore.verdict import Verdict
from pgsteward.results import Item, Note, StepResult
from pgsteward.targets import Target

STEP: Final = "restore"


@dataclass(slots=True)
class Phases:
    """Wall time per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be restored, where to, and with what."""

    target: Target
    found: Found
    admin: Login
    into: str
    replaces: bool
    jobs: int
    run_id: str
    stamp: str
    progress: Progress
    phases: Phases
    as_of: datetime | None = None
    create_roles: bool = False
    no_tablespaces: bool = False
    scope: Scope = field(default_factory=Scope)
    part: Part | None = None
    """What the scope is in this archive, to which the manifest is narrowed; None where all is restored."""

    @property
    def manifest(self) -> Manifest:
        return self.found.manifest

    @property
    def named(self) -> str:
        """The backup, with the moment that it brings back, in words."""
        asked = f", the newest as of {choice.said(self.as_of)}" if self.as_of is not None else ""
        part = f" ({'; '.join(self.part.scope.clauses)} only)" if self.part is not None else ""
        return f"{self.manifest.backup_id}{part} of {choice.said(choice.moment(self.manifest))}{asked}"

    @property
    def prefix(self) -> str:
        return self.found.prefix_in(self.target.name)


@dataclass(frozen=True, slots=True)
class Ready:
    """What the preflight found out."""

    client: Client
    archive: Archive
    checks: tuple[Check, ...]
    folder: Path
    """Holds ``dump/``; not all files are there yet when it is a spool."""
    arriving: Arriving | None = None
    """What is still to come into a spool."""
    roles: Script | None = None
    """What the backup says about roles, where missing ones are to be created."""
    session_settings: Mapping[str, str] = field(default_factory=dict)
    """Of the sessions that load."""

    @contextlib.contextmanager
    def files_arriving(self, phases: Phases, jobs: int) -> Iterator[None]:
        """Run a block that reads the files, as soon as there is one for each job; all are here at its end.

        Raises:
            StewardError: What ended the download, rather than what became of the block because of it.
        """
        if self.arriving is None:
            yield
            return
        with phases.phase("fetch"):
            self.arriving.wait_for(jobs)
        try:
            yield
        except ToolFailed:
            self.arriving.check()
            raise
        with phases.phase("fetch"):
            self.arriving.wait_for_all()

    def refuse_lost_files(self) -> None:
        """Raise what has ended the download, if something has."""
        if self.arriving is not None:
            self.arriving.check()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of the comparison.

    Attributes:
        relations: Tables whose rows were compared.
        rows: Of them, in the copy.
        differences: Those that no message of pg_restore explains.
        views: Materialized views, of which only existence and population were: a restore fills them anew.
    """

    level: str
    relations: int = 0
    rows: int = 0
    differences: tuple[Difference, ...] = ()
    explained: tuple[Difference, ...] = ()
    not_examined: tuple[tuple[str, str], ...] = ()
    views: int = 0

    @classmethod
    def of(
        cls,
        expected: Proof,
        actual: Proof,
        differences: Iterable[Difference],
        explained: Iterable[Difference] = (),
    ) -> Comparison:
        """Return what came of comparing two proofs."""
        views = {relation.key for relation in expected.relations if relation.kind == "m"}
        return cls(
            compared_level(expected, actual),
            len(expected.relations) - len(views),
            sum(relation.rows or 0 for relation in actual.relations if relation.key not in views),
            tuple(differences),
            tuple(explained),
            tuple(not_compared(expected, actual)),
            len(views),
        )

    @property
    def equal(self) -> bool | None:
        """Whether every stored row is there; None when nothing was compared.

        A materialized view that could not be filled here is no lost row: a backup holds none of its rows.
        """
        return None if self.level == "none" else not self.differences


def leave_receipt(
    order: Order,
    session: Connection,
    compared: Comparison,
    verdict: Verdict,
    *,
    what: What = STEP,
    wrong: Sequence[str] = (),
) -> dict[str, Any]:
    """Leave evidence in the store, good or bad; what was not compared as a whole, a part too, is never good.

    Args:
        order: What was restored.
        session: To the server, for its version.
        compared: With the proof.
        verdict: On pg_restore's messages.
        what: Which work it was.
        wrong: What else makes it a bad one.

    Raises:
        PreconditionError: It would be a bad one, and the backup was removed meanwhile.
    """
    whole = not compared.not_examined and order.part is None
    if not wrong and (compared.equal is None or (compared.equal and not whole)):
        return {"receipt": None, "receipt_error": None}
    manifest = order.manifest
    said = (*wrong, *compared.differences, *compared.explained, *verdict.degraded)
    receipt = Receipt(
        previous_sha256=None,
        written_at=datetime.now(UTC),
        backup_id=manifest.backup_id,
        target=order.target.name,
        database=manifest.database,
        store=order.found.store.name,
        what=what,
        into=order.into,
        server_version=f"{session.server_version // 10_000}.{session.server_version % 10_000}",
        pgsteward_version=version("pgsteward"),
        proof=Compared(
            level=manifest.proof.level,
            relations=compared.relations,
            rows=compared.rows,
            equal=compared.equal is True,
        ),
        differences=tuple(map(str, said)),
        seconds=order.phases.seconds,
        verdict="green" if compared.equal and not wrong else "red",
    )
    if receipt.verdict == "red":
        refuse_removed(order.found.store, order.target.name, manifest)
        tell_others(order.target, receipt)
    try:
        return {"receipt": write_receipt(order.found.store, receipt), "receipt_error": None}
    except StewardError as exc:
        return {"receipt": None, "receipt_error": str(exc)}


def planned(order: Order, ready: Ready, seconds: float) -> StepResult:
    action = f"would {_verb(order)}"
    expected = expected_failures(ready.checks)
    can = f"can be restored as {order.into}"
    if expected:
        can = f"may be tried as {order.into}, and may fail: {expected[0].reason}"
    return StepResult(
        step=STEP,
        target=order.target.name,
        status=results.judge(examined=len(ready.checks), unknown=order.found.notes, findings=expected),
        examined=len(ready.checks),
        findings=expected,
        changed=(Item(order.into, action, {"bytes": order.manifest.size_bytes}), *_along(order)),
        unknown=order.found.notes,
        skipped=() if order.part is None else order.part.left_out,
        seconds=seconds,
        summary=f"Backup {order.named}, in store {order.found.store.name} {can}.",
        details=_details(order, ready, None, {}),
        dry_run=True,
    )


def done(
    order: Order,
    ready: Ready,
    verdict: Verdict,
    compared: Comparison,
    extras: Mapping[str, Any],
    seconds: float,
    made: Made | None = None,
) -> StepResult:
    made = made or Made()
    unknown = [*order.found.notes, *(Note(*pair) for pair in compared.not_examined)]
    examined = compared.relations + compared.views
    if compared.level == "none":
        unknown.append(Note(order.into, "the backup has no proof (proof = none): nothing was compared"))
    elif order.part is not None and not (examined or order.part.sequences or order.scope.schema_only):
        unknown.append(Note(order.into, "this part has no rows: nothing of it could be compared"))
    if extras["receipt_error"]:
        unknown.append(Note("receipt", f"could not be written: {extras['receipt_error']}"))
    skipped = [Note(finding.object, finding.reason) for finding in verdict.degraded]
    skipped += [Note(order.into, f"not in the backup: {what}") for what in order.manifest.not_in_dump]
    skipped += extras["not_analyzed"]
    skipped += order.part.left_out if order.part is not None else ()
    skipped += made.skipped
    skipped += [
        Note(name, "left out: it would act on the servers that the original is connected with")
        for name in ready.archive.left_out
    ]
    skipped += [
        Note(order.into, check.says)
        for check in ready.checks
        if check.name == cluster.NAME and check.go == "warning"
    ]
    if extras["open_to_public"] is False:
        why = (
            f"{order.target.database} is closed to PUBLIC, so this copy is too: GRANT CONNECT to who needs it"
        )
        skipped.append(Note(order.into, why))
    status = results.judge(examined=examined or 1, unknown=unknown)
    if verdict.degraded or made.failed:
        status = "partial"
    action = {"replace": "replaced", "restore": "restored", "fill": "filled"}[_verb(order)]
    facts = {"rows": compared.rows, "bytes": order.manifest.size_bytes, "seconds": round(seconds, 3)}
    where = "its rows are in the tables of" if order.scope.data_only else "is"
    return StepResult(
        step=STEP,
        target=order.target.name,
        status=status,
        examined=examined,
        changed=(Item(order.into, action, facts), *_along(order), *made.changed),
        failed=tuple(made.failed),
        skipped=tuple(skipped),
        unknown=tuple(unknown),
        seconds=seconds,
        summary=f"Backup {order.named}, from store {order.found.store.name} {where} database {order.into}:"
        f" {_how(order, compared)}.",
        details=_details(order, ready, compared, extras),
    )


def _how(order: Order, compared: Comparison) -> str:
    if order.scope.schema_only:
        return f"its schema is compared, {compared.relations} tables are there, without their rows"
    if compared.level == "none":
        return "nothing was compared: the backup has no proof"
    if compared.explained:
        return f"{len(compared.explained)} materialized views could not be filled, everything else is equal"
    said = f"{compared.relations} tables and {compared.rows} rows compared ({compared.level})"
    said += f", {'all equal but for what is unknown' if compared.not_examined else 'all equal'}"
    views = plural(compared.views, "materialized view")
    return f"{said}; {views} filled anew, not compared" if compared.views else said


def _verb(order: Order) -> str:
    return "replace" if order.replaces else "fill" if order.scope.data_only else "restore"


def _along(order: Order) -> tuple[Item, ...]:
    if order.part is None:
        return ()
    return tuple(Item(note.object, "came along", {"why": note.reason}) for note in order.part.along)


def _details(
    order: Order, ready: Ready, compared: Comparison | None, extras: Mapping[str, Any]
) -> dict[str, Any]:
    proof = None
    if compared is not None:
        proof = {
            "level": compared.level,
            "relations": compared.relations,
            "rows": compared.rows,
            "equal": compared.equal,
        }
    return {
        "backup_id": order.manifest.backup_id,
        "as_of": None if order.as_of is None else order.as_of.isoformat(),
        "snapshot_at": choice.moment(order.manifest).isoformat(),
        "database": order.manifest.database,
        "store": order.found.store.name,
        "into": order.into,
        "replaced": extras.get("replaced"),
        "undo": extras.get("undo"),
        "part": None if order.part is None else order.part.as_json(),
        "proof": proof,
        "receipt": extras.get("receipt"),
        "bytes": order.manifest.size_bytes,
        "files": len(order.manifest.files),
        "client": ready.client.text,
        "jobs": order.jobs,
        "session_settings": dict(ready.session_settings),
        "preflight": as_json(ready.checks),
        "phases": dict(order.phases.seconds),
    }
