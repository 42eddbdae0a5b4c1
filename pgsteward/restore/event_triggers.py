"""What the event triggers of a live database meet when it gets something of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pgsteward.postgres import Connection
from pgsteward.postgres_settings import with_catalog_first

_SET = "SELECT pg_catalog.set_config('search_path', %(path)s, true)"


@contextlib.contextmanager
def with_their_path(live: Connection) -> Iterator[None]:
    """Run a block of statements that name everything in full under the search_path that is usual here.

    Event triggers are written for that, and a comparison's own path is empty. To be used in a transaction:
    one that fails takes the path along.
    """
    ours = live.value("SHOW search_path")
    live.execute("SET LOCAL search_path TO DEFAULT")
    if (path := with_catalog_first(live.value("SHOW search_path"))) is not None:
        live.execute(_SET, {"path": path})
    yield
    live.execute(_SET, {"path": ours})
