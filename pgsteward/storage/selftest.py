"""What a store really does: found out by trying, before a backup is entrusted to it.

The verdicts are remembered in the state folder under endpoint, bucket and settings, as long as none is bad.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pgsteward.config_stores import StoreConfig, endpoint_in_environment
from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.places import state_folder
from pgsteward.progress import Progress, silent
from pgsteward.storage.parts import LARGEST_PART_BYTES, MAX_PARTS

if TYPE_CHECKING:
    from pgsteward.storage import Store

FOLDER = ".pgsteward-selftest"
"""Below a target's folder; no database's backups lie there."""
VALID = timedelta(days=30)
LONGEST = timedelta(days=1)
"""No self-test takes so long, by the clock of another machine either: what an older one left is removed."""

_FORMAT = 2
_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")

Status = Literal["ok", "warn", "fail", "unknown", "skipped"]
Verdict = Literal["works", "honoured", "ignored", "refused", "broken", "unknown", "not asked for"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a store does, or does not.

    Attributes:
        name: Of the thing.
        verdict: What became of it in one word.
        status: Whether that hurts.
        message: What was seen.
        fix: What to do about it; empty when nothing is to be done.
    """

    name: str
    verdict: Verdict
    status: Status
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a self-test decides for later requests; without one nothing is relied on.

    Attributes:
        sha256: The store refuses bytes that don't fit the SHA-256 sent with them, and tells its own of what
            it has: of whole objects and of parts.
        trailers: Checksum trailers do no harm: ``request_checksum_calculation = when_supported``.
        late_lists: A new object is not in the listing at once.
        max_parts: The highest number of a part that it takes.
        max_request_bytes: How much one request may hold: a proxy before it may take less than S3 does.
        wants_digests: It takes nothing without a checksum: the bucket locks all objects by itself.
    """

    sha256: bool = False
    trailers: bool = False
    late_lists: bool = False
    max_parts: int = MAX_PARTS
    max_request_bytes: int = LARGEST_PART_BYTES
    wants_digests: bool = False


@dataclass(frozen=True, slots=True)
class SelfTest:
    """All verdicts about one store."""

    capabilities: tuple[Capability, ...]
    traits: Traits = Traits()
    tested_at: str = ""

    @property
    def bad(self) -> tuple[Capability, ...]:
        """Those with which no backup is made there."""
        return tuple(each for each in self.capabilities if each.status == "fail")

    def refuse_bad(self, store: Store) -> None:
        """Make sure that a backup may be entrusted to the store.

        Raises:
            StoreFailed: It may not; the text says why, and what to do.
        """
        if self.bad:
            first = self.bad[0]
            more = f" (and {len(self.bad) - 1} more: pgsteward doctor)" if len(self.bad) > 1 else ""
            fix = f"; {first.fix}" if first.fix else ""
            raise StoreFailed(
                f"store {store.name!r} ({store.location}) failed its self-test: {first.name}:"
                f" {first.message}{fix}{more}"
            )


def remembered(config: StoreConfig, now: datetime | None = None) -> SelfTest | None:
    """Return the verdicts about a store with these settings; None where there are none, or only old ones."""
    try:
        data = json.loads(_file(config).read_bytes())
        if data["format"] != _FORMAT:
            return None
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(data["tested_at"])
        if not timedelta(minutes=-5) <= age <= VALID:
            return None
        return SelfTest(
            tuple(Capability(**each) for each in data["capabilities"]),
            Traits(**data["traits"]),
            data["tested_at"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(config: StoreConfig, test: SelfTest) -> None:
    """Keep good verdicts, and forget what was known where one is bad; losing them costs another test."""
    file = _file(config)
    with contextlib.suppress(OSError):
        if test.bad:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        partial.write_text(json.dumps({"format": _FORMAT, **asdict(test)}, indent=1))
        partial.replace(file)


def traits(config: StoreConfig) -> Traits:
    """Return what is known about a store."""
    known = remembered(config)
    return known.traits if known is not None else Traits()


def examine(store: Store, config: StoreConfig, folder: str, progress: Progress = silent) -> SelfTest:
    """Test a store below a folder of keys (``app/``), leave nothing there, and remember the verdicts.

    Raises:
        StoreUnavailable: It can't be reached now.
    """
    now = datetime.now(UTC)
    with contextlib.suppress(StoreUnavailable, StoreFailed):  # the test itself says what is wrong
        remove_dead(store, folder, now)
    test = store.self_test(new_prefix(folder, now), progress)
    test = SelfTest(test.capabilities, test.traits, now.isoformat(timespec="seconds"))
    if config.scheme == "s3":
        remember(config, test)
    return test


def new_prefix(folder: str, now: datetime) -> str:
    """Return a prefix below a folder of keys for a test's own objects; what stays there is the janitor's."""
    return f"{folder}{FOLDER}/{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}/"


def remove_dead(store: Store, folder: str, now: datetime, *, dry_run: bool = False) -> list[str]:
    """Remove what self-tests left that were killed, and return their names."""
    removed = []
    for name in store.folders(f"{folder}{FOLDER}/"):
        match = _NAME.fullmatch(name)
        begun = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if match else None
        if begun is None or now - begun < LONGEST:
            continue
        prefix = f"{folder}{FOLDER}/{name}/"
        if not dry_run:
            store.abort_uploads(prefix)  # first: by the objects it is found again
            for stored in list(store.objects(prefix)):
                store.delete(stored.key)
        removed.append(name)
    return removed


def _file(config: StoreConfig) -> Path:
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"url", "read_back", "max_bandwidth"})
    settings |= {"bucket": config.bucket, "address": endpoint_in_environment()}
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return state_folder() / "stores" / f"{config.bucket}-{digest}.json"
