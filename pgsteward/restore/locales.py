"""What sorts text there and here, and whether this server has it at all."""

from __future__ import annotations

import re

from pgsteward.backup.manifest import Manifest
from pgsteward.postgres import Row
from pgsteward.restore.checks import Check
from pgsteward.restore.surroundings import Archive

_BYTES = re.compile(r"(?:C|POSIX)(?:\.|$)", re.IGNORECASE)


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
