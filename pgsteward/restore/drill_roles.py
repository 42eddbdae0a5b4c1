"""The roles of a drill: its server is thrown away, so the backup's own script of roles is tried out on it."""

from __future__ import annotations

from pgsteward.backup.globals_sql import GLOBALS
from pgsteward.errors import StewardError
from pgsteward.postgres import Connection, compose, identifier, quote_name
from pgsteward.restore import roles
from pgsteward.restore.outcome import Ready
from pgsteward.restore.roles import Script
from pgsteward.results import Note


def try_script(session: Connection, ready: Ready, *, run: bool) -> list[Note]:
    """Look at the script of roles, and say what a restore on a fresh server would miss.

    Args:
        session: To the drill's server.
        ready: Holds the script, and the archive's owners and grantees.
        run: Make the roles, as a restore with ``create_roles`` does.
    """
    if not (ready.folder / GLOBALS).is_file():
        return [Note(GLOBALS, "is not in the backup: on a fresh server its roles must be made by hand")]
    try:
        script = roles.read_script(ready.folder, session)
        made = roles.create_missing(session, script) if run else roles.Made()
    except StewardError as exc:
        return [Note(GLOBALS, f"could not be run: {exc}; on a fresh server its roles must be made by hand")]
    failed = [
        Note(note.object, f"{GLOBALS}, tried out on a fresh server: {note.reason}") for note in made.failed
    ]
    return failed + _lacking(script, ready)


def _lacking(script: Script, ready: Ready) -> list[Note]:
    known = {role.name for role in script.roles}
    lacking = sorted(name for name in ready.archive.roles - known if not name.startswith("pg_"))
    why = f"owns or may use objects of the backup, and {GLOBALS} does not make it: make it before a restore"
    return [Note(f"role {quote_name(name)}", why) for name in lacking]


def make_rest(session: Connection, ready: Ready) -> None:
    """Make the owners and grantees that are still lacking; they may do nothing."""
    for name in sorted(ready.archive.roles - roles.existing(session)):
        session.execute(compose("CREATE ROLE {} NOLOGIN", identifier(name)))
