"""RESTORE.md: how to bring a backup back with nothing but (age,) zstd, psql and pg_restore."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pgsteward.backup.manifest import DUMP, STREAM, Encryption, Mode
from pgsteward.postgres import compose, identifier

NAME = "RESTORE.md"

_HEAD = """\
# How to restore this backup without pgsteward

Backup `{backup_id}` of the PostgreSQL database `{database}`, made with pg_dump {client}.
{what} You need `psql` and
`pg_restore` of PostgreSQL {major} or newer, {programs}. From S3, fetch this folder first:

    aws s3 sync s3://BUCKET/PREFIX/{folder} .

Work in this folder, and say how to reach the new server as a superuser:

    export PGHOST=... PGPORT=5432 PGUSER=postgres PGPASSWORD=...

## 1. Is every file what was written?

    python3 - <<'END' | sha256sum --check --quiet
    import json
    for file in json.load(open("manifest.json"))["files"]:
        print(file["sha256"] + "  " + file["path"])
    END

No output means that every byte is right.
"""

_DECRYPT = """
## 2. Decrypt

Everything but this file and `manifest.json` is encrypted with [age](https://age-encryption.org) to
{recipients}. Say where the secret key is: a file of `age-keygen`, or the private key of ssh.

    export IDENTITY=...

The clear files come into a folder that nobody else can read.

    mkdir -m 700 clear
    find . -path ./clear -prune -o -name '*.age' -print | while read -r file; do
        mkdir -p "clear/$(dirname "$file")"
        age -d -i "$IDENTITY" -o "clear/${{file%.age}}" "$file" || exit 1
    done

It must end with status 0 and print nothing. Go on in that folder, and remove it when all is done:

    cd clear
"""

_REST = """
## {roles}. Roles and tablespaces (skip this on the server the backup came from)

    zstd -dc globals.sql.zst | psql --dbname=postgres --no-psqlrc

Roles that exist already give an error each; that is harmless. {passwords}
A backup without `globals.sql.zst` says why in `manifest.json`, under `warnings`.

## {empty}. The database: owner, locale, settings, rights

    zstd -dc database.sql.zst | psql --dbname=postgres --no-psqlrc --set=ON_ERROR_STOP=1

To restore beside a database that still has this name, make an empty one instead, and use its name below:

    createdb --template=template0 NEWNAME

## {data}. The data
{schemas}
    pg_restore --exit-on-error --jobs=2 --dbname={quoted} {archive}

It must end with status 0 and print no error. Only into a server older than 17, which does not know what
newer ones have, leave out `--exit-on-error`: errors about `transaction_timeout`, and status 1 for them, are
no loss there; any other is. Then let the planner know the tables:

    vacuumdb --analyze-only --dbname={quoted}

One table only: `pg_restore --exit-on-error --schema=public --table=NAME --dbname=... {archive}`.

## {equal}. Is it equal?

`manifest.json` holds the number of rows of every table under `proof.relations`, and the position of every
sequence under `proof.sequences`, as they were in the snapshot that was dumped.
"""

_KINDS = {
    "directory": "It is a plain `pg_dump --format=directory` archive and two compressed SQL scripts.",
    "stream": "It is one `pg_dump --format=custom` archive and two compressed SQL scripts.",
}


def text(
    database: str,
    backup_id: str,
    *,
    folder: str,
    client_version: str,
    mode: Mode = "directory",
    encryption: Encryption | None = None,
    role_passwords: bool = False,
    schemas: Iterable[str] = (),
) -> str:
    """Return the instructions for one backup.

    Args:
        database: Name of the database.
        backup_id: Id of the backup.
        folder: The backup's folder in its store, without a slash at the end.
        client_version: The pg_dump that made it.
        mode: Of its archive.
        encryption: Of its files.
        role_passwords: Whether the script of roles holds them.
        schemas: Those that the archive needs and does not make.
    """
    parts = [_HEAD, _DECRYPT, _REST] if encryption else [_HEAD, _REST]
    steps = ["roles", "empty", "data", "equal"]
    numbers = {step: number for number, step in enumerate(steps, 3 if encryption else 2)}
    own = (
        "Passwords are in it."
        if role_passwords
        else ("Passwords are not in the backup: set them with\n`ALTER ROLE ... PASSWORD`.")
    )
    return "".join(parts).format(
        backup_id=backup_id,
        database=database.replace("`", "'"),
        folder=folder,
        client=client_version,
        major=client_version.partition(".")[0],
        quoted=_conninfo(database),
        what=_KINDS[mode],
        programs="`zstd` and `age`" if encryption else "and `zstd`",
        recipients=", ".join(f"`{each}`" for each in encryption.recipients) if encryption else "",
        archive=STREAM if mode == "stream" else DUMP,
        passwords=own,
        schemas=_making(schemas, _conninfo(database)),
        **numbers,
    )


def _making(schemas: Iterable[str], quoted: str) -> str:
    lines = [
        f"    psql --dbname={quoted} --no-psqlrc --command="
        + shlex.quote(compose("CREATE SCHEMA IF NOT EXISTS {}", identifier(schema)).as_string())
        for schema in schemas
    ]
    if not lines:
        return ""
    made = "\n".join(lines)
    return f"\nThe archive holds a part, and makes not every schema that it needs. First:\n\n{made}\n"


def _conninfo(database: str) -> str:
    """Return a database's name as a shell word that no client takes for anything but a name."""
    if "=" not in database and "://" not in database:
        return shlex.quote(database)
    escaped = database.replace("\\", r"\\").replace("'", r"\'")
    return shlex.quote(f"dbname='{escaped}'")
