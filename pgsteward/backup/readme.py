"""RESTORE.md: how to bring a backup back with nothing but zstd, psql and pg_restore."""

from __future__ import annotations

import shlex

NAME = "RESTORE.md"

_TEXT = """\
# How to restore this backup without pgsteward

Backup `{backup_id}` of the PostgreSQL database `{database}`, made with pg_dump {client}.
It is a plain `pg_dump --format=directory` archive and two compressed SQL scripts. You need `psql` and
`pg_restore` of PostgreSQL {major} or newer, and `zstd`. From S3, fetch this folder first:

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

## 2. Roles and tablespaces (skip this on the server the backup came from)

    zstd -dc globals.sql.zst | psql --dbname=postgres --no-psqlrc

Roles that exist already give an error each; that is harmless. Passwords are not in the backup: set them with
`ALTER ROLE ... PASSWORD`. A backup without `globals.sql.zst` says why in `manifest.json`, under `warnings`.

## 3. The database: owner, locale, settings, rights

    zstd -dc database.sql.zst | psql --dbname=postgres --no-psqlrc --set=ON_ERROR_STOP=1

To restore beside a database that still has this name, make an empty one instead, and use its name below:

    createdb --template=template0 NEWNAME

## 4. The data

    pg_restore --exit-on-error --jobs=2 --dbname={quoted} dump

It must end with status 0 and print no error. Then let the planner know the tables:

    vacuumdb --analyze-only --dbname={quoted}

One table only: `pg_restore --exit-on-error --schema=public --table=NAME --dbname=... dump`.

## 5. Is it equal?

`manifest.json` holds the number of rows of every table under `proof.relations`, and the position of every
sequence under `proof.sequences`, as they were in the snapshot that was dumped.
"""


def text(database: str, backup_id: str, *, folder: str, client_version: str) -> str:
    """Return the instructions for one backup.

    Args:
        database: Name of the database.
        backup_id: Id of the backup.
        folder: The backup's folder in its store, without a slash at the end.
        client_version: The pg_dump that made it.
    """
    return _TEXT.format(
        backup_id=backup_id,
        database=database.replace("`", "'"),
        folder=folder,
        client=client_version,
        major=client_version.partition(".")[0],
        quoted=_conninfo(database),
    )


def _conninfo(database: str) -> str:
    """Return a database's name as a shell word that no client takes for anything but a name."""
    if "=" not in database and "://" not in database:
        return shlex.quote(database)
    escaped = database.replace("\\", r"\\").replace("'", r"\'")
    return shlex.quote(f"dbname='{escaped}'")
