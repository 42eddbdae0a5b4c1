"""What a drill looks at beside the proof: the schema, the indexes, the roles, and the target's own checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pgsteward import sql
from pgsteward.backup import archive
from pgsteward.errors import LockTimeout, QueryFailed, StewardError
from pgsteward.pgtools import run_tool, tool_env
from pgsteward.postgres import Login, connect, quote_name
from pgsteward.report.units import plural
from pgsteward.restore.load import definitions, load_schema
from pgsteward.restore.outcome import Order, Ready
from pgsteward.restore.verdict import Finding, Verdict
from pgsteward.results import Note

PURPOSE = "drill"
_SHOWN = 5
_DAMAGE = frozenset({"XX001", "XX002"})
"""data_corrupted, index_corrupted; any other error of amcheck is none of the index."""


def foreign_matviews(login: Login) -> list[str]:
    """Return the materialized views that would ask other servers, as SQL writes their names."""
    with connect(login, purpose=PURPOSE) as session:
        rows = session.rows(sql.load("drill_foreign_matviews"))
    return [quote_name(row["schema_name"], row["name"]) for row in rows]


def check_indexes(
    order: Order, name: str, wrong: list[Note], unknown: list[Note], skipped: list[Note]
) -> int | None:
    """Let amcheck look at every B-tree index; return how many, or None where there is no amcheck."""
    order.progress("checking indexes")
    with connect(order.admin.to(name), purpose=PURPOSE) as session:
        if session.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") == 0:
            skipped.append(Note("indexes", "not checked: this server has no amcheck (contrib)"))
            return None
        there = session.value("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") > 0
        try:
            if not there:
                with session.transaction():  # a schema that is left behind would count as damage
                    session.execute("CREATE SCHEMA pgsteward_amcheck")
                    session.execute("CREATE EXTENSION amcheck SCHEMA pgsteward_amcheck")
            schema = session.value(
                "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'amcheck'"
            )
            session.execute("SELECT set_config('search_path', %(path)s, false)", {"path": schema})
        except (QueryFailed, LockTimeout) as exc:
            skipped.append(Note("indexes", f"not checked: amcheck can't be set up: {exc}"))
            return None
        rows = session.rows(sql.load("drill_indexes"))
        for number, row in enumerate(rows):
            order.progress(f"checking {row['name']}", number, len(rows))
            try:
                session.execute("SELECT bt_index_check(%(oid)s::int8::oid::regclass, true)", row)
            except QueryFailed as exc:
                index = quote_name(row["schema_name"], row["name"])
                if exc.sqlstate in _DAMAGE:
                    what = f"amcheck: {exc}; REINDEX it in the original, and look at its collation's version"
                    wrong.append(Note(index, what))
                else:
                    unknown.append(Note(index, f"amcheck could not look at it: {exc}"))
        if not there:
            session.execute("DROP EXTENSION amcheck")
            session.execute("DROP SCHEMA pgsteward_amcheck")
    return len(rows)


def compare_schemas(
    order: Order,
    ready: Ready,
    name: str,
    second: str,
    verdict: Verdict,
    wrong: list[Note],
    unknown: list[Note],
) -> bool | None:
    """Compare the restored schema with a second restore of the archive's schema alone.

    Never with the source's own text: checks and views print differently after one restore.

    Args:
        order: What was restored.
        ready: With which client.
        name: The restored database.
        second: An empty one, made as that was.
        verdict: On the restore of the first; what only one of both lacks, such as an owner, is no difference.
        wrong: Gets what differs.
        unknown: Gets why nothing could be compared.
    """
    order.progress("comparing the schema")
    manifest = order.manifest
    path = ready.folder / manifest.archive
    expected = manifest.proof.schema_sha256
    same_client = manifest.client_version == ready.client.text  # another one may print it differently
    if expected is not None and same_client and archive.schema_sha256(ready.client, path) != expected:
        wrong.append(Note("schema", "the archive's own schema is not the one of the manifest"))
        return False
    again = load_schema(order, ready, second)
    if again.fatal:
        unknown.append(Note("schema", f"its second restore failed: {again.fatal[0]}"))
        return None
    try:
        here, there = (Counter(_lines(order, ready, each)) for each in (name, second))
    except StewardError as exc:
        unknown.append(Note("schema", f"could not be compared: {exc}"))
        return None
    missing, extra = there - here, here - there
    if (missing or extra) and (once := _degraded_once(set(definitions(order, ready)), verdict, again)):
        why = "could not be compared: two restores of it lack different things"
        unknown.append(Note("schema", f"{why}: {'; '.join(map(str, once[:_SHOWN]))}"))
        return None
    if missing or extra:
        shown = [f"missing: {line}" for line in list(missing)[:_SHOWN]]
        shown += [f"too many: {line}" for line in list(extra)[:_SHOWN]]
        count = plural(sum((missing + extra).values()), "line")
        wrong.append(
            Note("schema", f"differs from a restore of the schema alone in {count}: {'; '.join(shown)}")
        )
        return False
    return True


def _degraded_once(entries: Collection[int], first: Verdict, second: Verdict) -> list[Finding]:
    """Return what one of two restores could not set, such as a role that was dropped in between."""
    found = [{each.entry: each for each in verdict.degraded} for verdict in (first, second)]
    only = {each: finding for one in found for each, finding in one.items() if each in entries}
    return [finding for each, finding in only.items() if not all(each in one for one in found)]


def _lines(order: Order, ready: Ready, name: str) -> list[str]:
    """Return a database's schema as pg_dump writes it, less comments, keys and versions of its own."""
    argv: list[str | Path] = [
        ready.client.tool("pg_dump"),
        "--schema-only",
        "--no-password",
        f"--dbname={order.admin.to(name).conninfo}",
    ]
    script = archive.without_versions(run_tool(argv, env=tool_env(order.admin, PURPOSE)).stdout)
    return archive.without_comments(script).decode(errors="replace").split("\n")


def run_checks(order: Order, name: str, wrong: list[Note], unknown: list[Note]) -> list[dict[str, Any]]:
    """Run the target's own checks, read-only; each must be true."""
    settings = order.target.settings.drill
    done: list[dict[str, Any]] = []
    for number, check in enumerate(settings.checks, 1):
        order.progress(f"check {number}", number - 1, len(settings.checks))
        entry: dict[str, Any] = {"check": check, "result": None}
        done.append(entry)
        what = f"check {number}"
        try:
            with connect(
                order.admin.to(name),
                purpose=PURPOSE,
                statement_timeout_s=settings.check_timeout_s,
                settings={"default_transaction_read_only": "on"},
            ) as session:
                entry["result"] = value = session.value(check.encode())
        except StewardError as exc:
            unknown.append(Note(what, f"{check}: could not be asked: {exc}; mend it in the configuration"))
            continue
        if value is not True:
            wrong.append(Note(what, f"{check}: is {value!r}, not true"))
    return done
