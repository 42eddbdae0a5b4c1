"""What pg_restore's messages mean: each error is attributed and judged, and an unknown one is fatal.

pg_restore ends with status 1 for a comment that was lost as for a table that is missing, so its status says
nothing. The server's messages may come in any language; the commands beside them don't. Judged is therefore
the command.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Weight = Literal["benign", "degraded", "fatal"]

_HEAD = "pg_restore:"
_HEADS = re.compile(r"^(?:pg_restore:|error: |warning: | )+")
_FAILED = re.compile(r"could not execute query: |COPY failed for table |error returned by PQ|could not ")
_INFO = re.compile(
    r"from TOC entry |while |creating |processing |launching |finished |entering |executing |connecting "
    r"|skipping |disabling |enabling |setting |restoring |restored |dropping |reading |implied |table "
    r"|allocating |starting |started |ending |transferring |reducing |dependency "
)
_ENTRY = re.compile(r"from TOC entry (\d+); \d+ \d+ (.*)")
_CREATING = re.compile(r'creating ([A-Z ]+) "(.*)"')
_FILLING = re.compile(r'processing data for table "(.*)"')
_KIND = re.compile(r"((?:[A-Z]+ )+)(.*)")
_IGNORED = re.compile(r"errors ignored on restore: (\d+)")
_COMMAND = re.compile(r"Command was: (.*)")
_SERVER = re.compile(r"could not execute query: \w+: +|(?<=: )\w+: +(?=\S)")
_ROLE = re.compile(r'role "([^"]+)"')

_SETTINGS = frozenset(
    {
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_timeout",
        "row_security",
        "default_toast_compression",
    }
)
"""Preamble settings that an older server may not know, without any effect on what is restored."""

_BENIGN = (
    (re.compile(r"CREATE SCHEMA public;"), "the schema public is in every new database"),
    (re.compile(r"COMMENT ON SCHEMA public "), "the comment of the schema public belongs to its owner"),
    (re.compile(r"COMMENT ON EXTENSION "), "an extension's comment comes from the extension itself"),
)
_BROKEN = (
    (
        re.compile("violates foreign key constraint"),
        "unless their table failed too, the original holds these rows, written while triggers were off:"
        " mend them there",
    ),
    (
        re.compile("could not create unique index|violates exclusion constraint|create exclusion constraint"),
        "the original holds these rows too, under a damaged index (pg_amcheck finds it): mend them there",
    ),
    (
        re.compile("violates check constraint"),
        "the original's rows break its own constraint: a function in it has changed, or reads other tables,"
        " which a restore fills later; mend it there, or make it NOT VALID",
    ),
    (
        re.compile("does not exist.*(?:SQL|PL/\\w+) function", re.DOTALL),
        "it relies on search_path, and a restore has none: ALTER FUNCTION ... SET search_path there",
    ),
    (
        re.compile("COPY failed for table .*: duplicate key"),
        "only an extension's table has its keys before its rows, and the extension's own script has made this"
        " row too, which pg_dump can't know: leave the table's rows out (exclude_table_data)",
    ),
    (
        re.compile('unrecognized parameter "pg_attver"'),
        "the dumped server notes versions of columns, and this one knows of none: restore into one of that"
        " release or newer, or dump with the client of that release, which leaves them out",
    ),
    (
        re.compile("CONTEXT: +(?:SQL|PL/\\w+) function"),
        "a function of the original does not stand its own rows any more: mend it there",
    ),
)
"""Databases that could not be loaded by anybody: what is wrong, and what to do in the original."""
_CALLED = re.compile("violates check constraint|CONTEXT: +(?:SQL|PL/\\w+) function")
"""Errors that may come from a function which reads more than it was given."""
_NOT_OWNED = "owner not set"
_DEGRADED = (
    (re.compile(r"REFRESH MATERIALIZED VIEW (?:CONCURRENTLY )?(.+?)(?: WITH .*)?;"), "not filled"),
    (re.compile(r"ALTER DEFAULT PRIVILEGES "), "default privileges not set"),
    (re.compile(r"(?:GRANT|REVOKE) "), "privileges not set"),
    (re.compile(r"ALTER (?:[A-Z]+ )+.+ OWNER TO (.+);"), _NOT_OWNED),
    (re.compile(r"COMMENT ON "), "comment not set"),
    (re.compile(r"SECURITY LABEL "), "security label not set"),
    (re.compile(r"SELECT \* FROM pg_catalog\.pg_restore_\w+_stats\("), "planner statistics not set"),
)


_UNREADABLE = re.compile(
    r"could not read from input file|could not (?:un|de)compress|could not find block ID"
    r"|found unexpected block|unrecognized data block type|did not find magic string"
    r"|does not appear to be a valid archive"
    r"|input file is too short|unexpected end of file|corrupt tar header"
)
"""Words of pg_restore itself about an archive."""
_NO_ROWS = re.compile(
    r"COPY failed for table \"(?:[^\"]|\"\")*\": (?:\w+: +)?(?:missing data for column"
    r"|extra data after last expected|invalid byte sequence for encoding|invalid input syntax for"
    r"|invalid input value for enum"
    r"|literal (?:carriage return|newline) found|malformed (?:array|record|range|multirange) literal"
    r"|value too long for type|value .* is out of range for type|unexpected EOF in COPY data)"
)
"""Words of the server about a table's rows, which no sound dump makes it say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of pg_restore, judged.

    Attributes:
        weight: ``benign`` has no consequence, ``degraded`` lost something beside data and objects,
            ``fatal`` lost data or an object.
        object: What it is about, as the archive names it.
        reason: Why, in the server's words.
        matview: Name of the materialized view that stays empty, as SQL writes it.
        entry: Number of the archive's entry; None where the messages leave open which one it was.
        to_repeat: The statement that gives it to its owner, which may work once all rights are there.
    """

    weight: Weight
    object: str
    reason: str
    matview: str | None = None
    entry: int | None = None
    to_repeat: str | None = None

    def __str__(self) -> str:
        return f"{self.object}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings of one run of pg_restore.

    Attributes:
        findings: In the order of the messages.
        finished: It came to its end and counted its errors, rather than giving up in the middle.
    """

    findings: tuple[Finding, ...] = ()
    finished: bool = False

    @property
    def fatal(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.weight == "fatal")

    @property
    def degraded(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.weight == "degraded")

    @property
    def benign(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.weight == "benign")

    @property
    def empty_matviews(self) -> frozenset[str]:
        """Materialized views that could not be filled, as SQL writes their names."""
        return frozenset(finding.matview for finding in self.findings if finding.matview is not None)


@dataclass(slots=True)
class _Message:
    objects: list[str]
    entries: list[int]
    text: str
    command: str = ""
    in_one_line: bool = True


class Listener:
    """Listens to ``pg_restore --verbose`` line by line, and keeps what is needed to judge it.

    Attributes:
        filled: The tables whose rows are or were loaded, in order.
    """

    def __init__(
        self,
        owners: Collection[str] = (),
        listed: Mapping[int, str] | None = None,
        unread: Collection[str] = (),
    ) -> None:
        """Begin.

        Args:
            owners: Of objects in the archive: entries end with an owner's name, unquoted.
            listed: The archive's entries by number, as ``pg_restore --list`` writes them: with their schemas.
            unread: Tables that functions may want to read, and that a part leaves without rows.
        """
        self._listed = listed or {}
        self._unread = unread
        self.filled: list[str] = []
        self._owners = sorted(owners, key=len, reverse=True)
        self._created: dict[str, list[str]] = {}
        self._messages: list[_Message] = []
        self._warnings: list[str] = []
        self._ignored: int | None = None
        self._objects: list[str] = []
        self._entries: list[int] = []  # their numbers
        self._fresh = False  # whether `_objects` were named since the last error
        self._open: _Message | None = None
        self._heads = 0  # that no text was heard for yet
        self._levels = {"error": 0, "warning": 0}  # likewise

    def hear(self, line: str) -> None:
        """Take in one line of stderr.

        A worker writes ``pg_restore:``, a blank, ``error: `` and the text one after the other; another
        worker's pieces may come in between. Heads are therefore counted, and each text is given the head it
        fits.
        """
        text = _HEADS.sub("", line, count=1) if self._heads or line.startswith(_HEAD) else line
        head = line.removesuffix(text).strip(" ") and line.removesuffix(text)  # blanks alone are none
        self._heads += head.count(_HEAD)
        for level in ("error", "warning"):
            said = head.count(f"{level}: ")
            self._levels[level] += said
            self._heads = max(0, self._heads - said)
        if not head and not self._starts(text):
            self._continue(text)
            return
        self._open = None
        self._take(text)

    def _starts(self, text: str) -> bool:
        """Tell whether a line without a head is the text of one that came before."""
        if not text.strip() or not (self._heads or self._levels["error"] or self._levels["warning"]):
            return False
        return self._open is None or bool(_INFO.match(text)) or bool(_FAILED.match(text))

    def _take(self, text: str) -> None:
        errors, warnings = self._levels["error"], self._levels["warning"]
        ignored = _IGNORED.match(text)
        if ignored and warnings:
            self._levels["warning"] -= 1
            self._ignored = int(ignored[1])
        elif not text:
            pass  # the text of this head is still to come
        elif errors and not _INFO.match(text):
            self._levels["error"] -= 1
            self._open = _Message(list(self._objects), list(self._entries), text)
            self._messages.append(self._open)
            self._fresh = False
        elif self._heads:
            self._heads -= 1
            self._inform(text)
        elif warnings:
            self._levels["warning"] -= 1
            self._warnings.append(text)

    def _inform(self, text: str) -> None:
        if match := _CREATING.match(text):
            self._created.setdefault(match[1], []).append(match[2])
        elif match := _FILLING.match(text):
            self._created.setdefault("TABLE DATA", []).append(match[1])
            self.filled.append(match[1])
        elif match := _ENTRY.match(text):
            # Workers share stderr: several entries without an error between them may each be the next one's.
            self._objects = [*(self._objects if self._fresh else []), self._named(match[2], int(match[1]))]
            self._entries = [*(self._entries if self._fresh else []), int(match[1])]
            self._fresh = True

    def verdict(self) -> Verdict:
        """Judge everything that was heard.

        An error that pg_restore counted but nobody heard is fatal; errors of its workers are counted twice.
        """
        findings = [_judge(message, self._unread) for message in self._messages]
        findings += [Finding("degraded", "pg_restore", text) for text in self._warnings]
        heard = len(self._messages)
        if lost := sum(self._levels.values()):
            what = f"pg_restore began {lost} messages whose text could not be read"
            findings.append(Finding("fatal", "pg_restore", what))
        if self._ignored is not None and self._ignored > 2 * heard:
            what = f"pg_restore counted {self._ignored} errors, {heard} of them could be read"
            findings.append(Finding("fatal", "pg_restore", what))
        return Verdict(tuple(findings), self._ignored is not None)

    def _continue(self, line: str) -> None:
        message = self._open
        if message is None or not line.strip():
            return
        if match := _COMMAND.match(line):
            message.command = match[1]
        elif message.command:
            message.command += " " + line.strip()
            message.in_one_line = False
        else:
            message.text += "; " + line.strip()

    def _named(self, entry: str, number: int) -> str:
        """Return ``TABLE public.jobs`` for ``TABLE jobs owner``, with its schema."""
        names = ("(no owner)", *self._owners)
        owner = next((name for name in names if entry.endswith(f" {name}")), None)
        what = entry.removesuffix(f" {owner}") if owner is not None else entry.rpartition(" ")[0] or entry
        match = _KIND.match(what)
        if match is None:
            return what
        kind, tag = match[1].strip(), match[2]
        if schema := _schema(entry, self._listed.get(number, "")):
            return f"{kind} {schema}.{tag}"
        for name in reversed(self._created.get(kind, [])):
            if name == tag or name.endswith(f".{tag}"):
                return f"{kind} {name}"
        return what


def shows_damage(said: str) -> bool:
    """Tell whether messages are a positive sign that an archive is not what it should be.

    In another language than English they are none: they could as well be about a server that lacks something.
    """
    return bool(_UNREADABLE.search(said) or _NO_ROWS.search(said))


def judge_messages(lines: Iterable[str], owners: Collection[str] = ()) -> Verdict:
    """Judge what ``pg_restore --verbose`` wrote to stderr; see `Listener`."""
    listener = Listener(owners)
    for line in lines:
        listener.hear(line)
    return listener.verdict()


def _schema(entry: str, listed: str) -> str | None:
    """Return what ``TABLE public jobs owner`` has more than ``TABLE jobs owner``, if it is a schema."""
    for blank in reversed([each.start() for each in re.finditer(" ", entry)]):
        head, tail = entry[: blank + 1], entry[blank:]
        if len(listed) > len(entry) and listed.startswith(head) and listed.endswith(tail):
            schema = listed[len(head) : -len(tail)]
            return None if schema == "-" else schema
    return None


def _judge(message: _Message, unread: Collection[str]) -> Finding:
    named = " or ".join(message.objects) or "preamble"
    reason = _SERVER.sub("", message.text, count=1)
    command = message.command
    entry = message.entries[0] if len(message.entries) == 1 else None
    if setting := re.match(r"SET (\w+) = ", command):
        weight: Weight = "benign" if setting[1] in _SETTINGS else "fatal"
        return Finding(weight, f"setting {setting[1]}", reason)
    for pattern, why in _BENIGN:
        if pattern.match(command):
            return Finding("benign", named, f"{why} ({reason})", entry=entry)
    for pattern, why in _DEGRADED:
        if match := pattern.match(command):
            matview = match[1] if why == "not filled" else None
            said = f"{why}: {reason}{_advice(reason, why, unread)}"
            to_repeat = command if why == _NOT_OWNED and message.in_one_line else None
            return Finding("degraded", matview or named, said, matview, entry, to_repeat)
    if command.startswith("CREATE EXTENSION "):
        said = f"{reason}; see what it asks of its server: shared_preload_libraries, settings of its own"
        return Finding("fatal", named, said, entry=entry)
    return Finding("fatal", named, f"{reason}{_advice(reason, '', unread)}", entry=entry)


def _advice(reason: str, why: str, unread: Collection[str]) -> str:
    if unread and _CALLED.search(reason):
        names = ", ".join(unread)
        return (
            f"; functions of this part mention {names}, which has no rows in it: choose it too, or everything"
        )
    if why == "not filled":
        return "; mend its query (names without a schema are the usual cause) and REFRESH it"
    if known := next((what for pattern, what in _BROKEN if pattern.search(reason)), None):
        return f"; {known}, and back up again"
    role = _ROLE.search(reason)
    return f"; create the role {role[1]} (globals.sql.zst has it) and repeat the command" if role else ""
