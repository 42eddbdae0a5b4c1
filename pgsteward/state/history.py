"""What was done, when, to which object. The morning report and planners read it; losing it loses history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from pgsteward.errors import StateFailed
from pgsteward.results import NightResult, Status, StepResult
from pgsteward.state.engine import open_engine, reason
from pgsteward.state.entries import Entries, entries_of
from pgsteward.state.tables import memories, objects, runs, step_databases, steps


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the history.

    Attributes:
        kind: ``nightly``, or ``step`` for one that was started on its own.
        steps: Names of its steps in the order they ran.
    """

    id: str
    target: str
    database: str
    kind: str
    started_at: datetime
    seconds: float
    status: Status
    dry_run: bool
    host: str
    steps: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.id,
            "kind": self.kind,
            "steps": list(self.steps),
            "status": self.status,
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
            "host": self.host,
        }


class History:
    """The state database. Use it as a context manager, or `close` it."""

    def __init__(self, url: str) -> None:
        """Open it; tables are made on first use.

        Args:
            url: SQLAlchemy URL of SQLite or PostgreSQL.

        Raises:
            ConfigError: The URL is of something else.
            StateFailed: It can't be reached, or a newer pgsteward wrote it.
        """
        self._engine = open_engine(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def record(
        self,
        result: NightResult | StepResult,
        *,
        database: str = "",
        started_at: datetime | None = None,
    ) -> str:
        """Keep a result and return the id of its run.

        Args:
            result: A night with all its steps, or one step that was started on its own.
            database: For a step, which does not know it.
            started_at: For a step; by default its wall time before now.

        Raises:
            StateFailed: It could not be written.
        """
        entries = entries_of(result, database=database, started_at=started_at)
        self.write(entries)
        return str(entries.run["id"])

    def write(self, entries: Entries) -> None:
        """Keep the rows of one run.

        Raises:
            StateFailed: They could not be written.
        """
        with self._writing() as connection:
            connection.execute(sa.insert(runs).values(**entries.run))
            for step, found in entries.steps:
                inserted = connection.execute(sa.insert(steps).values(**step)).inserted_primary_key
                assert inserted is not None
                for table in (objects, step_databases):
                    if theirs := found[table.name]:
                        rows = [{**row, "step_id": inserted[0]} for row in theirs]
                        connection.execute(sa.insert(table), rows)

    def last_night(self, target: str, scope: str = "") -> NightResult | None:
        """Return the newest night of a target that was no dry run, or None.

        Args:
            target: Name of the target.
            scope: See `Target.scope`. A night of this scope comes before all others: one of a single database
                by hand says nothing of the rest. Where there is none, the target had another scope.

        Raises:
            StateFailed: It could not be read.
        """
        newest = (
            sa.select(runs)
            .where(runs.c.target == target, runs.c.kind == "nightly", runs.c.dry_run.is_(False))
            .order_by(sa.case((runs.c.database == scope, 0), else_=1), runs.c.started_at.desc())
            .limit(1)
        )
        with self._reading() as connection:
            run = connection.execute(newest).mappings().one_or_none()
            if run is None:
                return None
            kept = connection.scalars(
                sa.select(steps.c.json).where(steps.c.run_id == run["id"]).order_by(steps.c.position)
            ).all()
        return NightResult(
            target=run["target"],
            database=run["database"],
            started_at=run["started_at"],
            seconds=run["seconds"],
            steps=tuple(StepResult.from_json(entry) for entry in kept),
            dry_run=run["dry_run"],
        )

    def recent(self, target: str, limit: int = 20) -> list[Run]:
        """Return the newest runs of a target, nights and single steps, newest first.

        Raises:
            StateFailed: It could not be read.
        """
        newest = (
            sa.select(runs)
            .where(runs.c.target == target)
            .order_by(runs.c.started_at.desc(), runs.c.id)
            .limit(limit)
        )
        with self._reading() as connection:
            found = connection.execute(newest).mappings().all()
            names: dict[str, list[str]] = {run["id"]: [] for run in found}
            for run_id, name in connection.execute(
                sa.select(steps.c.run_id, steps.c.step)
                .where(steps.c.run_id.in_(names))
                .order_by(steps.c.run_id, steps.c.position)
            ):
                names[run_id].append(name)
        return [Run(**run, steps=tuple(names[run["id"]])) for run in found]

    def recall(self, target: str, database: str, topic: str) -> dict[str, Any]:
        """Return what an operation has kept of a database, by object.

        Args:
            target: Name of the target.
            database: Name of one database.
            topic: See `keep`.

        Raises:
            StateFailed: It could not be read.
        """
        with self._reading() as connection:
            kept = connection.execute(
                sa.select(memories.c.object, memories.c.json).where(
                    memories.c.target == target, memories.c.database == database, memories.c.topic == topic
                )
            )
            return {row.object: row.json for row in kept}

    def keep(
        self, target: str, database: str, topic: str, entries: Mapping[str, Any], *, gone: Iterable[str] = ()
    ) -> None:
        """Keep something about objects of a database until the next run, in place of what was kept before.

        Args:
            target: Name of the target.
            database: Name of one database.
            topic: Which operation keeps it and what for: ``analyze.parents``.
            entries: What to keep, JSON-able, by object.
            gone: Objects to forget.

        Raises:
            StateFailed: It could not be written.
        """
        place = {"target": target, "database": database, "topic": topic}
        row = [memories.c[column] == value for column, value in place.items()]
        outdated = [{"name": name} for name in {*entries, *gone}]
        now = datetime.now(UTC)
        with self._writing() as connection:
            if outdated:
                same = memories.c.object == sa.bindparam("name")
                connection.execute(sa.delete(memories).where(*row, same), outdated)
            if entries:
                rows = [{**place, "object": n, "kept_at": now, "json": each} for n, each in entries.items()]
                connection.execute(sa.insert(memories), rows)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as exc:
            raise StateFailed(f"the history was not written: {reason(exc)}") from exc

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as exc:
            raise StateFailed(f"the history can't be read: {reason(exc)}") from exc
