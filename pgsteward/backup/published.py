"""The last look at a backup before its manifest makes it one: what the store has, not what it was given."""

from __future__ import annotations

from collections.abc import Sequence

from pgsteward.backup.listing import missing_file, problem_of
from pgsteward.backup.manifest import MARK, StoredFile
from pgsteward.errors import VerificationFailed
from pgsteward.storage import Store


def lacking(store: Store, prefix: str, files: Sequence[StoredFile]) -> str | None:
    """Say which file a store lists not at all or in another size; None when all are there.

    What a listing lacks is read, as some stores list late.

    Args:
        store: Where they were put.
        prefix: Of the backup's keys.
        files: What its manifest names.
    """
    sizes = {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}
    doubtful = [file for file in files if sizes.get(file.path) != file.size_bytes]
    if all(problem_of(store, prefix, file) is None for file in doubtful):
        return None
    return missing_file(doubtful, sizes)


def refuse_gone(store: Store, prefix: str, mark: bytes, wrong: str | None) -> None:
    """Make sure that nobody has removed anything of a backup that is about to get its manifest.

    Args:
        store: Where it is.
        prefix: Of its keys.
        mark: As it was put there.
        wrong: What is known to be wrong with its files.

    Raises:
        VerificationFailed: Its mark or a file is gone, or another run has made the mark its own.
    """
    try:
        if store.get_bytes(prefix + MARK) != mark:
            wrong = f"{MARK} is another run's"
    except FileNotFoundError:
        wrong = f"{MARK} is missing"
    if wrong is not None:
        raise VerificationFailed(
            f"the backup is not published: its files were changed in store {store.name!r} while it was made"
            f" ({wrong}). A janitor that is connected to another server of this cluster can have taken it for"
            " dead, or the disk was changed; look who else works on that store, and run it again"
        )
