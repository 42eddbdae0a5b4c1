"""What sorts text there and here, and whether this server has it at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pgsteward.backup.manifest import Manifest
from pgsteward.errors import QueryFailed
from pgsteward.postgres import Composed, Connection, Row, compose, join, literal, quote_name, raw
from pgsteward.restore.checks import Check
from pgsteward.restore.surroundings import Archive, Options

_BYTES = re.compile(r"(?:C|POSIX)(?:\.|$)", re.IGNORECASE)
_EVERYWHERE = {"C", "POSIX"}
_NO_RIGHT = "42501"
_MADE_OF = {name: raw(name) for name in ("provider", "locale", "lc_collate", "lc_ctype", "rules")}
"""What a collation is made of; whether it is deterministic makes no difference to whether it can be made."""


def examine(session: Connection, manifest: Manifest, archive: Archive, server: Row) -> list[Check]:
    """Look at the database's locale and at the collations that its columns have.

    Args:
        session: To the admin database of the server.
        manifest: Of the backup.
        archive: Its table of contents.
        server: From ``restore_server.sql``.
    """
    checks = [_lacking(session, manifest, archive, server) or collation(manifest, archive, server)]
    missing = sorted(archive.named_collations - set(server["collations"]))
    if missing:
        names = ", ".join(map(quote_name, missing))
        says = f"this server lacks {names}: what sorts by them can't be made, and the restore will fail"
        fix = "install these locales, then make the cluster anew or pg_import_system_collations in template0"
        checks.append(Check("collations of columns", "warning", says, fix, expects_failure=True))
    return checks


def _lacking(session: Connection, manifest: Manifest, archive: Archive, server: Row) -> Check | None:
    """Make each collation in a transaction that is rolled back; nothing else tells whether it can be made."""
    if server["read_only"]:
        return None  # a no-go of its own
    other = manifest.server.encoding != server["encoding"]
    for named, options in _needed(manifest, archive):
        libc = options["provider"] == "libc"
        if libc and {options.get(key, "C") for key in _MADE_OF if key != "provider"} <= _EVERYWHERE:
            continue
        if libc and other:
            says = f"{named} can't be tried out here: database {session.dbname} is in another encoding"
            return Check("collation", "unknown", says)
        try:
            with session.rehearsal():
                session.execute(_making(options))
        except QueryFailed as exc:
            if exc.sqlstate == _NO_RIGHT:
                return Check("collation", "unknown", f"{named} can't be tried out here: {exc}")
            fix = "install the locale on the server, or take a server that has it"
            return Check("collation", "no-go", f"this server has no {named}: {exc}", fix)
    return None


def _needed(manifest: Manifest, archive: Archive) -> Iterator[tuple[str, Options]]:
    """Return the locales of the database and of the collations that the archive makes, named."""
    options = archive.options
    both = options.get("LOCALE")
    collate = options.get("LC_COLLATE", both or manifest.server.collate)
    ctype = options.get("LC_CTYPE", both or manifest.server.ctype)
    named = " and ".join(dict.fromkeys((collate, ctype)))
    yield f"locale {named}", {"provider": "libc", "lc_collate": collate, "lc_ctype": ctype}
    for provider, key in (("icu", "ICU_LOCALE"), ("builtin", "BUILTIN_LOCALE")):
        if options.get("LOCALE_PROVIDER") == provider and (locale := options.get(key, both)):
            rules = {"rules": options["ICU_RULES"]} if "ICU_RULES" in options else {}
            yield f"{provider} locale {locale}", {"provider": provider, "locale": locale, **rules}
    for made in archive.made_collations:
        locale = made.get("locale") or f"{made.get('lc_collate')} and {made.get('lc_ctype')}"
        yield f"{made['provider']} locale {locale}", made


def _making(options: Mapping[str, str]) -> Composed:
    parts = [
        compose("{} = {}", _MADE_OF[key], literal(value)) for key, value in options.items() if key in _MADE_OF
    ]
    return compose("CREATE COLLATION pg_temp.pgsteward ({})", join(", ", parts))


def collation(manifest: Manifest, archive: Archive, server: Row) -> Check:
    """Compare what sorts text there and here; a restore builds its indexes anew, so that none is damaged."""
    provider = archive.options.get("LOCALE_PROVIDER", "libc")
    locale = archive.options.get("ICU_LOCALE" if provider == "icu" else "LC_COLLATE") or archive.options.get(
        "LOCALE", manifest.server.collate
    )
    named = f"{provider} {locale}"
    if provider == "builtin" or (provider == "libc" and _BYTES.match(locale)):
        return Check("collation", "go", f"{named} sorts alike everywhere")
    there = manifest.server.collation_version
    here = server["icu_versions"].get(locale) if provider == "icu" else server["libc_version"]
    if there is None or here is None:
        lacking = "the backup" if there is None else "this server"
        return Check("collation", "unknown", f"{lacking} does not say which version of {named} it sorts by")
    if there == here:
        return Check("collation", "go", f"{named}, version {here} as there")
    fix = "look at what relies on the order: range partitions, CHECK constraints, the application"
    return Check("collation", "warning", f"{named} is version {here} here, {there} there", fix)
