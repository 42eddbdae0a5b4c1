"""Writes a first, commented ``pgsteward.toml`` by asking or from flags. Nothing is contacted."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from rich.console import Console
from rich.prompt import Confirm, Prompt

from pgsteward import config as configuration
from pgsteward.config import NAME_PATTERN
from pgsteward.config_checks import conninfo_parts, conninfo_with_database
from pgsteward.errors import ConfigError, StewardError
from pgsteward.postgres import Login
from pgsteward.results import Item, StepResult
from pgsteward.sql import load


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known about the first target.

    Attributes:
        file: The configuration to write.
        name: Of the target; by default made of the database's name.
        conninfo: As for psql, without a password.
        stores: URLs, or folders.
        password_env: Environment variable that holds the password; None leaves it to libpq.
    """

    file: Path
    name: str | None = None
    conninfo: str | None = None
    stores: tuple[str, ...] = ()
    password_env: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        file: The configuration, readable for its owner only.
        target: Name of the target in it.
        sql: Makes the roles that it needs.
    """

    file: Path
    target: str
    sql: str

    def result(self) -> StepResult:
        """Return what ``--json`` prints."""
        return StepResult(
            "init",
            self.target,
            "ok",
            1,
            changed=(Item(str(self.file), "written"),),
            summary=f"{self.file} is written",
            details={"file": str(self.file), "sql": self.sql},
        )


def roles_sql(login: str = "") -> str:
    """Return the SQL that makes roles with the least rights; ``deployments/roles.sql`` says the same.

    Args:
        login: A role that shall be able to do all of it; it is made where it is missing.
    """
    text = load("roles").decode()
    if not login or login.startswith("pgsteward_"):
        return text
    quoted = "'" + login.replace("'", "''") + "'"
    return text + "\n" + load("roles_login").decode().replace("{login}", quoted)


def ask(answers: Answers, console: Console | None = None) -> Answers:
    """Ask for what was not given.

    Raises:
        ConfigError: Nobody is there to answer.
    """
    if not sys.stdin.isatty():
        if answers.conninfo and answers.stores:
            return answers
        raise ConfigError("init asks questions, and this is no terminal; give --conninfo and --store")
    console = console or Console(stderr=True)

    def prompt(question: str, default: str) -> str:
        return str(Prompt.ask(question, default=default, console=console))

    conninfo = answers.conninfo or prompt(
        "How is the database reached? (as for psql, without a password)",
        "host=127.0.0.1 dbname=app user=pgsteward",
    )
    name = answers.name or prompt("What shall it be called here?", default_name(conninfo))
    stores = answers.stores or tuple(
        prompt(
            "Where do backups go? (folders and s3://bucket/prefix, separated by spaces)", default_store()
        ).split()
    )
    password_env = answers.password_env
    if password_env is None and Confirm.ask(
        "Is the password in an environment variable? (no: .pgpass, peer, certificate)",
        default=False,
        console=console,
    ):
        password_env = prompt("Which one?", f"{name.upper().replace('-', '_')}_PASSWORD")
    return replace(answers, conninfo=conninfo, name=name, stores=stores, password_env=password_env)


def write_config(answers: Answers, *, force: bool = False) -> Written:
    """Write the configuration, readable for its owner only.

    Args:
        answers: What was not given gets its default.
        force: Overwrite a file that is there.

    Raises:
        ConfigError: The file is there already, an answer is wrong, or the folder can't be written.
    """
    file = answers.file
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already; --force overwrites it")
    if not answers.conninfo or not answers.conninfo.strip():
        raise ConfigError("say how the database is reached: --conninfo 'host=... dbname=... user=...'")
    try:
        conninfo_with_database(answers.conninfo)
    except ValueError as exc:
        raise ConfigError(f"{file}: conninfo: {exc}") from None
    name = answers.name or default_name(answers.conninfo)
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"--name {name!r}: use lower-case letters, digits, - and _ (it becomes a folder)")
    text = render(replace(answers, name=name))
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
            _check(Path(temporary), file)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(f"{file} can't be written: {exc.strerror}") from exc
    return Written(file, name, roles_sql(login_of(answers.conninfo)))


def login_of(conninfo: str) -> str:
    """Return the role that a conninfo names; empty where it leaves that to libpq."""
    user = conninfo_parts(conninfo).get("user", "")
    if "://" in conninfo:
        return unquote(user)
    return re.sub(r"\\(.)", r"\1", user[1:-1] if user.startswith("'") else user)


def as_role(conninfo: str, role: str) -> str:
    """Return the same conninfo for another role."""
    if "://" in conninfo:
        scheme, _, rest = conninfo.partition("://")
        where = re.match(r"[^/?]*", rest)[0]  # type: ignore[index]
        return f"{scheme}://{role}@{where.rpartition('@')[2]}{rest[len(where) :]}"
    parts = {**conninfo_parts(conninfo), "user": role}
    return " ".join(f"{key}={value}" for key, value in parts.items())


def default_name(conninfo: str) -> str:
    """Return a name for a target made of its database's."""
    try:
        database = Login(conninfo).dbname
    except StewardError:  # which is said where it matters
        return "app"
    name = re.sub(r"[^a-z0-9_-]+", "-", database.lower()).strip("-_")
    return name if NAME_PATTERN.fullmatch(name) else "app"


def default_store() -> str:
    """Return where backups go when nobody says: the usual place of a machine, or one's own folder."""
    machine = Path("/var/backups")
    usable = machine.is_dir() and os.access(machine, os.W_OK)
    return str(machine / "pgsteward" if usable else Path.home() / "pgsteward-backups")


def render(answers: Answers) -> str:
    """Return the text of a configuration."""
    stores = _stores(answers.stores or (default_store(),))
    password = (
        f"password = {{ env = {_quoted(answers.password_env)} }}"
        if answers.password_env
        else '# password = { env = "APP_PASSWORD" }       # or { file = "/run/secrets/app" }, or .pgpass'
    )
    names = ", ".join(_quoted(name) for name in stores)
    return _TEMPLATE.format(
        stores="\n".join(_store(name, url) for name, url in stores.items()),
        name=answers.name,
        conninfo=_quoted(answers.conninfo or ""),
        password=password,
        names=names,
        **{
            role: _quoted(as_role(answers.conninfo or "", f"pgsteward_{role}"))
            for role in ("backup", "maintenance", "restore")
        },
    )


def _check(temporary: Path, file: Path) -> None:
    try:
        configuration.load(temporary)
    except StewardError as exc:
        raise ConfigError(str(exc).replace(str(temporary), str(file))) from None


def _stores(urls: tuple[str, ...]) -> Mapping[str, str]:
    stores: dict[str, str] = {}
    for url in urls:
        if "://" not in url:
            url = f"file://{Path(url).expanduser().absolute()}"
        kind = "s3" if url.startswith("s3:") else "disk"
        name, number = kind, 2
        while name in stores:
            name, number = f"{kind}{number}", number + 1
        stores[name] = url
    return stores


def _store(name: str, url: str) -> str:
    lines = [f"[stores.{name}]", f"url = {_quoted(url)}"]
    if url.startswith("s3:"):
        lines += [
            "# Left out for AWS, where boto3's own chain finds region and keys:",
            '# endpoint_url = "https://s3.example.net"',
            '# region = "us-east-1"',
            '# access_key_id = { env = "S3_KEY" }',
            '# secret_access_key = { env = "S3_SECRET" }',
            '# sse = "s3"                                # or "kms"; docs/stores.md has all options',
            '# object_lock = "governance"                # backups nobody can delete, for object_lock_days',
            "# object_lock_days = 14",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_TEMPLATE = """\
# What pgsteward looks after. `pgsteward doctor` checks it; docs/configuration.md has every key.
# Secrets are never written in here, only where they are: {{ env = "NAME" }}, {{ file = "/path" }}.

# Runs are remembered here; losing it loses history, never a backup.
# state_url = "sqlite:///state.db"            # default: a file in the user's state folder

{stores}
[targets.{name}]
conninfo = {conninfo}
{password}
stores = [{names}]  # dumps are written to the first folder
# databases = "*"                             # all of the server, or ["app", "shop"]; docs/databases.md
# exclude_databases = ["scratch", "test_*"]
# client_dirs = ["/opt/postgresql/bin"]       # more folders with pg_dump and friends

# Each kind of work may have a role of its own (deployments/roles.sql makes them):
# [targets.{name}.maintenance]
# conninfo = {maintenance}
# [targets.{name}.restore]
# conninfo = {restore}

[targets.{name}.backup]
# conninfo = {backup}      # may be a standby
# jobs = 2                                  # left out: by processors and free connections
compress = "zstd:1"
proof = "full"                              # full | counts | none

[targets.{name}.retention]                    # a backup is kept by any of these rules
keep_last = 3
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
# keep_within = "14d"                         # and everything of the two weeks before the newest
keep_min = 2                                  # never fewer
keep_proven = 3                               # nor fewer that a restore has proven
# [targets.{name}.store_retention.s3]        # a store may keep other ones
# keep_monthly = 24

# Tables whose rows expire. A timestamp column needs time_zone, an integer one unit = "s" or "ms".
# [[targets.{name}.sessions]]
# table = "public.sessions"
# expires = "expires_at"

[targets.{name}.index_bloat]                  # rebuilt when both are met
min_ratio = 0.4
min_reclaimable = "50MB"

# [targets.{name}.index_audit]                 # what the application relies on; docs/maintenance.md
# required = ["users_email_key", {{ table = "jobs", columns = ["status", "location_type"] }}]
# [[targets.{name}.index_audit.constraints]]
# table = "public.jobs"
# check = "salary_min IS NULL OR salary_max IS NULL OR salary_min <= salary_max"
# [targets.{name}.index_audit.alembic]
# script_location = "/srv/app/alembic"
"""
