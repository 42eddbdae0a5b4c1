"""Index audit: the indexes that the application relies on are there, and none is invalid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgsteward import sql
from pgsteward.ledger import Ledger
from pgsteward.postgres import connect, quote_name
from pgsteward.postgres_names import split_qualified
from pgsteward.results import StepResult
from pgsteward.targets import Target

STEP = "indexes"


@dataclass(frozen=True, slots=True)
class Found:
    """One index of the database.

    Attributes:
        is_partitioned: The index of a partitioned table, which holds nothing itself.
        is_valid: Queries may use it.
        builder: Who builds it at this moment, or works on its table so that it may well be; None for nobody.
    """

    schema: str
    name: str
    is_partitioned: bool
    is_valid: bool
    builder: int | None = None

    @property
    def qualified(self) -> str:
        return quote_name(self.schema, self.name)


def audit(target: Target) -> StepResult:
    """Look for required indexes that are missing or invalid, and for invalid indexes of any name.

    Changes nothing. Each finding comes with what to run.

    Args:
        target: Whose ``[index_audit]``; without required names only invalid indexes are looked for.
    """
    ledger = Ledger(STEP, target.name)
    found = _inventory(target)
    missing: list[str] = []
    invalid: list[str] = []
    present: list[str] = []
    for required in target.settings.index_audit.required:
        matches = find_required(required, found)
        ledger.examined += 1
        if not matches:
            missing.append(required)
            ledger.find(required, "this required index is missing; the application's migration creates it")
        elif any(index.is_valid for index in matches):
            present.append(required)
        else:
            invalid.append(required)
            ledger.find(required, f"this required index is invalid; {advice(matches[0])}")
    already = {index.qualified for name in invalid for index in find_required(name, found)}
    for index in found:
        ledger.examined += 1
        if index.is_valid or index.qualified in already:
            continue
        if index.builder is not None:
            ledger.skip(index.qualified, f"invalid, and being built now by pid {index.builder}")
        elif index.is_partitioned:
            ledger.skip(index.qualified, f"invalid until each partition has its part; {advice(index)}")
        else:
            invalid.append(index.qualified)
            ledger.find(
                index.qualified, f"invalid: no query uses it, every write maintains it; {advice(index)}"
            )
    if not ledger.examined:
        ledger.doubt(target.database, "there is no index in this database, and none is required")
    required_count = len(target.settings.index_audit.required)
    return ledger.result(
        f"{len(found)} indexes looked at; {len(present)} of {required_count} required ones found,"
        f" {len(missing)} missing, {len(invalid)} invalid",
        {
            "required": list(target.settings.index_audit.required),
            "found": present,
            "missing": missing,
            "invalid": invalid,
        },
    )


def required_there(target: Target) -> set[str]:
    """Return those of the required indexes that the database has, valid or not."""
    found = _inventory(target)
    return {name for name in target.settings.index_audit.required if find_required(name, found)}


def _inventory(target: Target) -> list[Found]:
    with connect(
        target.login("maintenance"), purpose="index audit", lock_timeout_s=1, statement_timeout_s=60
    ) as connection:
        return [
            Found(row["schema"], row["name"], row["kind"] == "I", row["is_valid"], row["builder_pid"])
            for row in connection.rows(sql.load("index_inventory"))
        ]


def find_required(required: str, found: Sequence[Found]) -> list[Found]:
    """Return the indexes that a name of the configuration means.

    A name without a schema is looked for in all schemas; unquoted parts are folded as in SQL.
    """
    schema, name = split_qualified(required, default_schema="")
    return [index for index in found if index.name == name and schema in ("", index.schema)]


def advice(index: Found) -> str:
    """Return the statement that repairs an invalid index."""
    name = index.qualified
    if index.is_partitioned:
        return f"ALTER INDEX {name} ATTACH PARTITION the index of each partition that is not attached yet"
    return f"run REINDEX INDEX CONCURRENTLY {name}; or, if nobody needs it, DROP INDEX CONCURRENTLY {name};"
