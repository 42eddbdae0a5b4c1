"""What fills the scratch database: pg_restore, its messages judged.

Triggers are made last, after everything else was loaded and compared. Left to itself, pg_restore
makes the triggers of a partitioned table while its partitions are still being filled, so that they
fire; materialized views are filled when the event triggers are there already; and a login trigger meets each
of our sessions. What all these write would be rows that no backup holds.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pgsteward import sql
from pgsteward.backup import archive
from pgsteward.errors import QueryFailed, ToolFailed, VerificationFailed
from pgsteward.pgtools import start_tool, tool_env
from pgsteward.postgres import compose, connect, identifier, quote_name
from pgsteward.postgres_names import split_qualified
from pgsteward.report.units import plural
from pgsteward.restore import load_errors
from pgsteward.restore.outcome import STEP, Order, Ready
from pgsteward.restore.verdict import Finding, Listener, Verdict, shows_damage

log = logging.getLogger(__name__)

_TRIGGER = re.compile(rb"(?:(?:COMMENT|SECURITY LABEL) .*)?(?:EVENT )?TRIGGER ")
_ROWS = re.compile(
    rb"TABLE DATA |MATERIALIZED VIEW DATA |SEQUENCE SET |BLOBS? |BLOB METADATA |BLOB COMMENTS "
    rb"|STATISTICS DATA |(?:ACL|COMMENT|SECURITY LABEL) .*LARGE OBJECTS? "
)
_FILLED = b"MATERIALIZED VIEW DATA "
_MET = re.compile("tuple concurrently (?:updated|deleted)|deadlock detected")
"""What a worker is told that changed the same row of a catalog as another."""
_EXTENSION = "EXTENSION "
_REPEATABLE = (
    "INDEX ",
    "CONSTRAINT ",
    "FK CONSTRAINT ",
    "CHECK CONSTRAINT ",
    "RULE ",
    "STATISTICS ",
    "TABLE DATA ",
)
"""What several workers make side by side. An entry that failed has left nothing: it can be tried again."""


def load(order: Order, ready: Ready, name: str) -> Verdict:
    """Run pg_restore into the scratch database and judge what it says.

    Materialized views are left for `fill_matviews`, triggers for `load_triggers`.

    Args:
        order: What to restore.
        ready: What the preflight found out.
        name: Of the scratch database.

    Raises:
        VerificationFailed: Data or an object is missing.
        DatabaseUnavailable: Its sessions were ended or cut.
        ToolFailed: pg_restore itself broke down.
    """
    entries = _entries(order, ready)
    first = [
        number for number, _, what in entries if not _TRIGGER.match(what) and not what.startswith(_FILLED)
    ]
    all_of_it = order.part is None and len(first) == len(entries)
    with ready.files_arriving(order.phases, order.jobs), order.phases.phase("load"):
        verdict = _run(order, ready, name, entries, None if all_of_it else first, order.jobs)
    with order.phases.phase("load"):
        failed = _to_repeat(verdict)
        while failed:
            before, verdict = failed, _try_again(order, ready, name, verdict, failed, entries, first)
            failed = _to_repeat(verdict)
            if len(failed) >= len(before):
                break
    return _give_away(order, name, _refuse(order, verdict))


def load_bare(order: Order, ready: Ready, name: str) -> Verdict:
    """Likewise for a table's rows alone: what its checks read may not be there, and they have had their say.

    Raises:
        VerificationFailed: Rows, or something that they need, are missing.
        DatabaseUnavailable: Its sessions were ended or cut.
        ToolFailed: pg_restore itself broke down.
    """
    entries = _entries(order, ready)
    rows = [number for number, _, what in entries if what.startswith(b"TABLE DATA ")]
    others = [number for number, _, _ in entries if number not in set(rows)]
    with order.phases.phase("load"):
        made = _refuse(order, _run(order, ready, name, entries, others, 1))
        with connect(order.admin.to(name), purpose=STEP) as session:
            while checks := session.rows(sql.load("table_checks")):  # partitions lose theirs with the table
                for row in checks:
                    table = identifier(row["schema_name"], row["table_name"])
                    check = identifier(row["name"])
                    session.execute(compose("ALTER TABLE {} DROP CONSTRAINT {}", table, check))
        filled = _refuse(order, _run(order, ready, name, entries, rows, order.jobs))
    return replace(filled, findings=(*made.findings, *filled.findings))


def load_triggers(order: Order, ready: Ready, name: str, verdict: Verdict) -> Verdict:
    """Make the triggers, event triggers too, if there are any; return the verdict on both runs.

    Raises:
        VerificationFailed: One is missing.
        ToolFailed: pg_restore itself broke down.
    """
    entries = _entries(order, ready)
    last = [number for number, _, what in entries if _TRIGGER.match(what)]
    if not last:
        return verdict
    with order.phases.phase("load"):
        later = _refuse(order, _run(order, ready, name, entries, last, 1))
    return replace(verdict, findings=(*verdict.findings, *later.findings))


def fill_matviews(
    order: Order, ready: Ready, name: str, verdict: Verdict, left_out: Collection[str] = ()
) -> Verdict:
    """Fill the materialized views that `load` has left, in the archive's order; return the verdict on both.

    Args:
        order: What to restore.
        ready: What the preflight found out.
        name: Of the scratch database.
        verdict: On what was loaded.
        left_out: Names, as SQL writes them, of those that stay empty: they would ask foreign servers.
    """
    entries = _entries(order, ready)
    found = [(number, what) for number, _, what in entries if what.startswith(_FILLED)]
    if not found:
        return verdict
    empty = {unquoted(each) for each in left_out}
    wanted = [number for number, what in found if not _is_one_of(what, empty)]
    why = "not filled: it reads foreign tables or calls dblink or its like, and other servers would be asked"
    kept = [Finding("benign", each, why, matview=each) for each in sorted(left_out)]
    with order.phases.phase("matviews"):
        later = _run(order, ready, name, entries, wanted, order.jobs) if wanted else Verdict((), True)
    later = _refuse(order, later)
    return replace(verdict, findings=(*verdict.findings, *kept, *later.findings))


def load_schema(order: Order, ready: Ready, name: str) -> Verdict:
    """Restore the definitions into a second database; judged, not refused."""
    verdict = _run(order, ready, name, _entries(order, ready), definitions(order, ready), 1)
    return _give_away(order, name, verdict)


def definitions(order: Order, ready: Ready) -> list[int]:
    """Return the entries that are no rows, positions or large objects."""
    return [number for number, _, what in _entries(order, ready) if not _ROWS.match(what)]


def _entries(order: Order, ready: Ready) -> list[tuple[int, int, bytes]]:
    """Return what is to be restored of the archive."""
    entries = archive.entries(ready.client, ready.folder / order.manifest.archive)
    part = order.part
    return entries if part is None else [entry for entry in entries if entry[0] in part.numbers]


def unquoted(name: str) -> str:
    """Return ``schema name`` for a qualified name as SQL writes it: so an archive lists it."""
    return " ".join(split_qualified(name))


def _is_one_of(what: bytes, names: Collection[str]) -> bool:
    listed = what.removeprefix(_FILLED).decode(errors="replace")
    return any(listed.startswith(f"{name} ") for name in names)


def _to_repeat(verdict: Verdict) -> list[Finding]:
    """Return what may have failed for what other workers did, or had not done; nothing where that is no use.

    They can run into deadlocks where indexes of partitions are attached, and lose rights and comments to each
    other. Rows may need those of a table that no foreign key of the archive names: a function in a CHECK or a
    type looks there, or an extension's own tables refer to each other. What says that the archive is damaged,
    or the server in need, is final.
    """
    if load_errors.session_lost(verdict):
        return []
    final = [
        each
        for each in verdict.fatal
        if each.entry is None
        or not each.object.startswith(_REPEATABLE)
        or shows_damage(each.reason)
        or load_errors.advice(each.reason)
    ]
    beside = [
        each
        for each in verdict.degraded
        if each.entry is not None
        and (_MET.search(each.reason) or (verdict.fatal and each.object.startswith("COMMENT ")))
    ]
    return [] if final else [*verdict.fatal, *beside]


def _try_again(
    order: Order,
    ready: Ready,
    name: str,
    verdict: Verdict,
    failed: list[Finding],
    listed: list[tuple[int, int, bytes]],
    numbers: list[int],
) -> Verdict:
    """Make once more, one after the other, what failed; return the verdict on both runs."""
    again = {each.entry for each in failed}
    log.warning(
        "%s could not be made before the others, or beside them; trying again with one: %s",
        plural(len(failed), "object"),
        "; ".join(map(str, failed[:5])),
    )
    second = _run(order, ready, name, listed, [number for number in numbers if number in again], 1)
    still = {each.entry for each in second.findings}
    mended = [
        replace(each, weight="benign", reason=f"made when it was tried again ({each.reason})")
        for each in failed
        if each.entry not in still
    ]
    kept = [each for each in verdict.findings if each.entry not in again]
    return replace(verdict, findings=(*kept, *mended, *second.findings))


def _give_away(order: Order, name: str, verdict: Verdict) -> Verdict:
    """Give to their owners what could not be given before these had CREATE on its schema: rights come last.

    A superuser needs no such right.
    """
    if not any(each.to_repeat for each in verdict.degraded):
        return verdict
    findings = list(verdict.findings)
    with connect(order.admin.to(name), purpose=STEP, lock_timeout_s=30) as session:
        for place, each in enumerate(findings):
            if each.to_repeat is not None:
                with contextlib.suppress(QueryFailed):  # it stays as it was told
                    session.execute(each.to_repeat.encode())
                    findings[place] = replace(each, weight="benign", to_repeat=None)
    return replace(verdict, findings=tuple(findings))


def _let_go(order: Order, ready: Ready, verdict: Verdict) -> Verdict:
    """Take extensions that only a superuser may create for left out, rather than for lost.

    What needs them fails as well, and is fatal. Bodies of functions alone are not looked at.
    """
    refused = [each for each in verdict.fatal if each.object.startswith(_EXTENSION)]
    if not refused:
        return verdict
    with connect(order.admin, purpose=STEP) as session:
        server = session.row(sql.load("restore_server"))
    if server["is_superuser"]:
        return verdict
    findings = list(verdict.findings)
    for place, each in enumerate(findings):
        name = each.object.removeprefix(_EXTENSION)
        if each in refused and name in server["superuser_extensions"]:
            create = f"CREATE EXTENSION {quote_name(name)}"
            if schema := ready.archive.extensions.get(name):
                create += f" SCHEMA {quote_name(schema)}"
            findings[place] = replace(
                each,
                weight="degraded",
                reason=f"left out: only a superuser can create it; functions that use it fail until one runs"
                f" there: {create}",
            )
    return replace(verdict, findings=tuple(findings))


def _refuse(order: Order, verdict: Verdict) -> Verdict:
    if lost := load_errors.session_lost(verdict):
        raise lost
    if verdict.fatal:
        fatal = sorted(verdict.fatal, key=lambda each: not shows_damage(each.reason))  # that is heard first
        causes = [each for each in verdict.degraded if each.object.startswith(_EXTENSION)]
        first = "; ".join(map(str, [*causes, *fatal[:5]]))
        more = f"; and {len(verdict.fatal) - 5} more" if len(verdict.fatal) > 5 else ""
        todo = load_errors.advice(first) or (
            "; by hand, the rest can be loaded as RESTORE.md says, without --exit-on-error"
        )
        raise VerificationFailed(
            f"backup {order.manifest.backup_id} could not be restored as a whole,"
            f" {plural(len(verdict.fatal), 'object')} failed: {first}{more}{todo}"
        )
    return verdict


def _run(
    order: Order,
    ready: Ready,
    name: str,
    listed: list[tuple[int, int, bytes]],
    numbers: list[int] | None,
    jobs: int,
) -> Verdict:
    heard = Listener(
        ready.archive.roles,
        {number: what.decode(errors="replace") for number, _, what in listed},
        [] if order.part is None else [quote_name(*key) for key in order.part.unread],
    )
    tables = sum(relation.kind == "r" for relation in order.manifest.proof.relations)
    order.progress(f"loading {order.manifest.backup_id}", 0, tables)

    def show() -> None:
        ready.refuse_lost_files()
        if heard.filled:
            order.progress(f"loading {heard.filled[-1]}", len(heard.filled), tables)

    with tempfile.NamedTemporaryFile(prefix="pgsteward-", suffix=".list") as listing:
        argv: list[str | Path] = [
            ready.client.tool("pg_restore"),
            f"--format={'custom' if order.manifest.mode == 'stream' else 'directory'}",
            "--verbose",
            f"--jobs={jobs}",
            "--no-subscriptions",
            "--no-publications",
            "--no-password",
            f"--dbname={order.admin.to(name).conninfo}",
            *(["--no-tablespaces"] if order.no_tablespaces else []),
        ]
        if numbers is not None:
            listing.write(b"".join(b"%d;\n" % number for number in numbers))
            listing.flush()
            argv.append(f"--use-list={listing.name}")
        argv.append(ready.folder / order.manifest.archive)
        environment = tool_env(order.admin, STEP, ready.session_settings)
        with start_tool(argv, env=environment, on_stderr=heard.hear) as tool:
            try:
                tool.wait(show)
            except ToolFailed as exc:
                verdict = heard.verdict()
                if tool.poll() != 1 or not verdict.finished:
                    log.info("%s", exc)  # the error has the gist of it
                    raise load_errors.as_error(exc, verdict) from exc
            else:
                verdict = heard.verdict()
    return _let_go(order, ready, verdict)
