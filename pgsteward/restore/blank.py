"""The empty database that a backup is loaded into: with encoding, locale and owner of the dumped one."""

from __future__ import annotations

from collections.abc import Mapping

from pgsteward.backup.manifest import Manifest
from pgsteward.postgres import Connection
from pgsteward.restore import scratch
from pgsteward.restore.outcome import Order, Ready
from pgsteward.restore.properties import read_properties
from pgsteward.restore.surroundings import Archive


def create(order: Order, ready: Ready, session: Connection, *, suffix: str = "") -> str:
    """Create a scratch database as the dumped one was, and return its name.

    It is the original's owner's where this role may give it away: who may own what in it hangs on that, so
    two databases that are compared have to be made alike.

    Args:
        order: What will be loaded.
        ready: What the preflight found out.
        session: To the admin database.
        suffix: Of its name, where a run makes several.

    Raises:
        PreconditionError: This server lacks the locale or the rights.
    """
    properties = read_properties(session, order.target.database)
    return scratch.create(
        session,
        order.run_id + suffix,
        order.manifest.backup_id,
        _options(order.manifest, ready.archive),
        properties["tablespace"] if order.replaces and properties else None,
        properties["owner"] if properties and properties["may_own"] else None,
    )


def _options(manifest: Manifest, archive: Archive) -> Mapping[str, str]:
    """Return encoding and locale of the dumped database."""
    server = manifest.server
    fallback = {"ENCODING": server.encoding, "LC_COLLATE": server.collate, "LC_CTYPE": server.ctype}
    return archive.options or fallback
