"""Roles that a backup brings along and the server lacks; a role that is there is never altered.

The script is pg_dumpall's. Only statements of the kinds that it makes for roles are run, and only for roles
that are missing: nothing else comes in by it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pgsteward.backup import archive
from pgsteward.backup.globals_sql import GLOBALS, decompress
from pgsteward.backup.manifest import SUFFIX, Manifest, StoredFile
from pgsteward.errors import PreconditionError, QueryFailed, VerificationFailed
from pgsteward.postgres import Connection, compose, identifier, quote_name
from pgsteward.results import Item, Note

log = logging.getLogger(__name__)

_NAME = r'("(?:[^"]|"")+"|[^\s";]+)'
_CREATE = re.compile(rf"CREATE ROLE {_NAME}")
_ALTER = re.compile(rf"ALTER ROLE {_NAME} WITH (.*)", re.DOTALL)
_SET = re.compile(rf"ALTER ROLE {_NAME} SET .*", re.DOTALL)
_COMMENT = re.compile(rf"COMMENT ON ROLE {_NAME} IS .*", re.DOTALL)
_PARAMETER = re.compile(rf"GRANT [A-Z, ]+ ON PARAMETER \S+ TO {_NAME}(?: WITH GRANT OPTION)?", re.DOTALL)
_GRANT = re.compile(rf"GRANT {_NAME} TO {_NAME}(?: WITH (.*?))?(?: GRANTED BY {_NAME})?", re.DOTALL)
_ENCODING = re.compile(rb"^SET client_encoding = '(\w+)';", re.MULTILINE)
_FLAGS = re.compile(r"(?:(?:NO)?(?:SUPERUSER|INHERIT|CREATEROLE|CREATEDB|LOGIN|REPLICATION|BYPASSRLS)\b\s*)*")
_DEFAULTS = re.compile(r"\bNO(?:SUPERUSER|REPLICATION|BYPASSRLS)\b\s*")
_OF_A_ROLE = (_SET, _COMMENT, _PARAMETER)
_OPTIONS_FROM = 160_000
"""From this server on a membership has INHERIT and SET of its own, and who makes a role has neither."""
_OPTIONS = ("ADMIN TRUE", "INHERIT TRUE", "INHERIT FALSE", "SET TRUE", "SET FALSE")


@dataclass(frozen=True, slots=True)
class Role:
    """One role of the script.

    Attributes:
        attributes: What stands behind ``ALTER ROLE ... WITH``.
        statements: Its settings, comment and rights on parameters, as they are written.
    """

    name: str
    attributes: str = ""
    statements: tuple[str, ...] = ()

    @property
    def flags(self) -> set[str]:
        matched = _FLAGS.match(self.attributes)
        return set(matched[0].split()) if matched else set()

    @property
    def has_password(self) -> bool:
        matched = _FLAGS.match(self.attributes)
        return "PASSWORD '" in self.attributes[matched.end() if matched else 0 :]


@dataclass(frozen=True, slots=True)
class Membership:
    """``GRANT role TO member``."""

    role: str
    member: str
    options: str


@dataclass(frozen=True, slots=True)
class Script:
    """What a backup says about roles.

    Attributes:
        others: Statements that are about something else than roles, by their first words.
    """

    roles: tuple[Role, ...]
    memberships: tuple[Membership, ...]
    others: tuple[str, ...] = ()

    def missing(self, there: Collection[str]) -> tuple[Role, ...]:
        """Return the roles that a server lacks; names that start with ``pg_`` are its own."""
        return tuple(r for r in self.roles if r.name not in there and not r.name.startswith("pg_"))


@dataclass(slots=True)
class Made:
    """What became of them."""

    changed: list[Item] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)


def stored_script(manifest: Manifest) -> StoredFile:
    """Return the file of a backup that holds its roles.

    Raises:
        PreconditionError: It has none.
    """
    for file in manifest.files:
        if file.path in (GLOBALS, GLOBALS + SUFFIX):
            return file
    raise PreconditionError(
        f"backup {manifest.backup_id} holds no roles (its manifest says why, under warnings); leave"
        " --create-roles out and create them by hand"
    )


def read_script(folder: Path, session: Connection) -> Script:
    """Return what the script in the folder of a backup says; its bytes have been checked.

    Raises:
        VerificationFailed: It is none, whatever its bytes.
    """
    try:
        script = decompress((folder / GLOBALS).read_bytes())
    except VerificationFailed as exc:
        raise VerificationFailed(f"{GLOBALS} can't be read: {exc}") from exc
    said = _ENCODING.search(script)
    encoding = said[1].decode() if said else "UTF8"
    return parse(archive.decoder(session, encoding)(script))


def parse(text: str) -> Script:
    """Return what a script of pg_dumpall says about roles."""
    roles: dict[str, Role] = {}
    memberships: list[Membership] = []
    others: list[str] = []
    for statement in split(text):
        if match := _CREATE.fullmatch(statement):
            name = _unquoted(match[1])
            roles.setdefault(name, Role(name))
        elif (match := _ALTER.fullmatch(statement)) and (role := roles.get(_unquoted(match[1]))):
            roles[role.name] = Role(role.name, match[2], role.statements)
        elif (match := next(filter(None, (kind.fullmatch(statement) for kind in _OF_A_ROLE)), None)) and (
            role := roles.get(_unquoted(match[1]))
        ):
            roles[role.name] = Role(role.name, role.attributes, (*role.statements, statement))
        elif match := _GRANT.fullmatch(statement):
            memberships.append(Membership(_unquoted(match[1]), _unquoted(match[2]), match[3] or ""))
        elif not statement.startswith(("SET ", "SELECT ")):
            others.append(" ".join(statement.split()[:3]))
    return Script(tuple(roles.values()), tuple(memberships), tuple(others))


def split(text: str) -> Iterator[str]:
    """Yield the statements of a script, without comments, psql's own commands and semicolons."""
    found, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif text.startswith("--", position) or (char == "\\" and not found.strip()):
            position = text.find("\n", position)
            if position < 0:
                break
            char = " "
        elif char == ";":
            if found.strip():
                yield found.strip()
            found, char = "", ""
        found += char
        position += 1
    if found.strip():
        yield found.strip()


def existing(session: Connection) -> frozenset[str]:
    """Return the names of all roles of the server."""
    return frozenset(row["name"] for row in session.rows("SELECT rolname::text AS name FROM pg_roles"))


def create_missing(session: Connection, script: Script) -> Made:
    """Create the roles that the server lacks, with what the script says about them: all at once, or none.

    What the server refuses to set for one of them is told, and the others are made all the same.
    """
    made = Made()
    there = existing(session)
    superuser = bool(session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    new: set[str] = set()
    with session.transaction():
        if not superuser and session.server_version >= _OPTIONS_FROM:  # else nothing could be given to it
            session.execute("SET LOCAL createrole_self_grant = 'set, inherit'")
        for role in script.missing(there):
            if not _create(session, role, superuser, made):
                continue
            new.add(role.name)
            password = "from the backup" if role.has_password else "none"
            made.changed.append(Item(f"role {quote_name(role.name)}", "created", {"password": password}))
            if "LOGIN" in role.flags and not role.has_password:
                why = "the backup holds no password for it: set one, \\password in psql"
                made.skipped.append(Note(f"role {quote_name(role.name)}", why))
        for membership in script.memberships:
            _grant(session, membership, new, there | new, made)
    for item in made.changed:
        log.info("%s %s", item.object, item.action)
    made.skipped += [Note(what, "not about roles, and left out") for what in script.others]
    return made


def _create(session: Connection, role: Role, superuser: bool, made: Made) -> bool:
    attributes = role.attributes
    if not superuser:  # may not even name what only superusers may give
        end = matched.end() if (matched := _FLAGS.match(attributes)) else 0
        attributes = _DEFAULTS.sub("", attributes[:end]) + attributes[end:]
    name = identifier(role.name)
    try:
        with session.transaction():
            session.execute(compose("CREATE ROLE {}", name))
            if not superuser and session.server_version < _OPTIONS_FROM:
                session.execute(compose("GRANT {} TO CURRENT_USER", name))
            if attributes.strip():
                head = compose("ALTER ROLE {} WITH ", name).as_string()
                session.execute((head + attributes).encode())
    except QueryFailed as exc:
        made.failed.append(Note(f"role {quote_name(role.name)}", f"could not be created: {exc}"))
        return False
    for statement in role.statements:
        try:
            with session.transaction():
                session.execute(statement.encode())
        except QueryFailed as exc:
            what = " ".join(statement.split()[:5])
            made.failed.append(Note(f"role {quote_name(role.name)}", f"{what} ...: {exc}"))
    return True


def _grant(
    session: Connection, membership: Membership, new: set[str], there: frozenset[str] | set[str], made: Made
) -> None:
    named = f"membership of {quote_name(membership.member)} in {quote_name(membership.role)}"
    if membership.member not in new:
        if membership.role in new:
            why = f"{quote_name(membership.member)} was there already, and is not altered: GRANT it by hand"
            made.skipped.append(Note(named, why))
        return
    if membership.role not in there:
        made.failed.append(Note(named, "there is no such role"))
        return
    options = {option.strip().upper() for option in membership.options.split(",")}
    if "ADMIN OPTION" in options:  # as servers before 16 write it
        options.add("ADMIN TRUE")
    given = [option for option in _OPTIONS if option in options]
    if session.server_version < _OPTIONS_FROM:
        given = ["ADMIN OPTION"] if "ADMIN TRUE" in options else []
    grant = compose("GRANT {} TO {}", identifier(membership.role), identifier(membership.member)).as_string()
    text = f"{grant} WITH {', '.join(given)}" if given else grant
    try:
        with session.transaction():
            session.execute(text.encode())
    except QueryFailed as exc:
        made.failed.append(Note(named, str(exc)))


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
