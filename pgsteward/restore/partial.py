"""What the restore of a partial backup does otherwise."""

from __future__ import annotations

from pgsteward.backup import archive
from pgsteward.backup.manifest import Manifest, Proof
from pgsteward.errors import PreconditionError
from pgsteward.postgres import compose, connect, identifier
from pgsteward.restore.outcome import STEP, Order, Ready


def refuse_replacing(manifest: Manifest) -> None:
    """Make sure that no part takes the place of a whole database.

    Raises:
        PreconditionError: The backup is partial.
    """
    if manifest.partial:
        raise PreconditionError(
            f"backup {manifest.backup_id} is partial ({'; '.join(manifest.partial)}): it can't take the place"
            " of a database; restore it into a new one, and copy what you need from there"
        )


def make_schemas(order: Order, ready: Ready, name: str) -> None:
    """Make the schemas that pg_dump leaves out: those of tables chosen by name, and those of extensions."""
    manifest = order.manifest
    given = {argument.partition("=")[0] for argument in manifest.arguments}
    if not given & {"--table", "--schema"}:
        return
    wanted = set(ready.archive.extensions.values()) - ready.archive.schemas
    with connect(order.admin.to(name), purpose=STEP) as session:
        if "--table" in given:
            wanted |= {relation.schema_name for relation in manifest.proof.relations}
            if order.part is not None:
                wanted |= order.part.schemas
            else:
                decode = archive.decoder(session, manifest.server.encoding)
                wanted |= archive.schemas(ready.client, ready.folder / manifest.archive, decode)
        for schema in sorted(wanted):
            session.execute(compose("CREATE SCHEMA IF NOT EXISTS {}", identifier(schema)))


def expected_sequences(manifest: Manifest, actual: Proof) -> Proof:
    """Return the proof of a restored copy without the sequences whose positions the dump leaves out."""
    if not manifest.partial:
        return actual
    known = {(each.schema_name, each.name) for each in manifest.proof.sequences}
    held = tuple(each for each in actual.sequences if (each.schema_name, each.name) in known)
    return actual.model_copy(update={"sequences": held})
