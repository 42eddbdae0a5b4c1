"""Which cluster a backup is of, beside the server that it is restored to.

A restore to another server is what backups are made for, and after a loss there is no other. But two living
clusters that share a target's name share its catalog too, and then ``latest`` may be the other one's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC

from pgsteward.backup.manifest import Manifest
from pgsteward.backup.newest import order
from pgsteward.report.units import plural
from pgsteward.restore.checks import Check

NAME = "cluster"


def examine(
    manifest: Manifest,
    here: str | None,
    previous: Collection[str],
    seen: Sequence[Manifest],
    *,
    replaces: bool,
) -> Check:
    """Say whose backup it is; that of a stranger replaces nothing unless it was named by its id.

    Args:
        manifest: Of the backup.
        here: System identifier of the server to restore to; None where it may not be asked.
        previous: What the target calls ``previous_clusters``.
        seen: The backups that this one was chosen from as the newest; empty when it was named by its id.
        replaces: It shall take the place of a database.
    """
    cluster = manifest.server.system_identifier
    if cluster is None:
        return Check(NAME, "unknown", "the manifest does not say which cluster the backup is of")
    own = {*previous, *(() if here is None else (here,))}
    others: dict[str, list[Manifest]] = {}
    for each in seen:
        whose = each.server.system_identifier
        if whose is not None and whose != cluster and not {whose, cluster} <= own:
            others.setdefault(whose, []).append(each)
    rivals = "".join(f"; there {_are(backups)} of cluster {id_}" for id_, backups in others.items())
    if cluster == here:
        says = f"the backup is of this server's own cluster, {cluster}"
    elif cluster in previous:
        says = f"the backup is of cluster {cluster}, one of previous_clusters"
    elif here is None:
        says = f"the backup is of cluster {cluster}; this server does not tell this role which it is"
        return Check(NAME, "warning" if rivals else "unknown", says + rivals)
    else:
        says = f"the backup is of cluster {cluster}, and this server is cluster {here}{rivals}"
        mine = [each for whose, backups in others.items() if whose in own for each in backups]
        if replaces and mine:
            newest = max(mine, key=order)
            return Check(
                NAME,
                "no-go",
                f"{says}. Name the backup that is meant by its id: {newest.backup_id} is the newest of this"
                " server's; or, if that cluster is what this server was before, add it to previous_clusters",
            )
        return Check(NAME, "warning" if rivals or replaces else "go", says)
    return Check(NAME, "warning" if rivals else "go", says + rivals)


def _are(backups: Sequence[Manifest]) -> str:
    newest = max(each.started_at for each in backups).astimezone(UTC)
    verb = "is" if len(backups) == 1 else "are"
    return f"{verb} {plural(len(backups), 'backup')}, the newest of {newest:%Y-%m-%d %H:%M} UTC,"
