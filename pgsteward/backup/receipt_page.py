"""A receipt as a page for people: what an auditor takes away. It lies beside the receipt itself."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from pgsteward.report.units import humanize_seconds

if TYPE_CHECKING:
    from pgsteward.backup.receipts import Receipt

_WHAT = {
    "restore": "Restore",
    "drill": "Restore drill",
    "verify": "Check of the stored bytes",
    "clear-freeze": "Freeze cleared",
}


def page_of(receipt: Receipt, name: str, sha256: str) -> str:
    """Return a receipt as Markdown.

    Args:
        receipt: As it is stored.
        name: Of its file.
        sha256: Of its stored bytes.
    """
    rows = [
        ("database", receipt.database),
        ("target", receipt.target),
        ("backup", receipt.backup_id),
        ("read from store", receipt.store),
        ("restored into", receipt.into),
        ("server", f"PostgreSQL {receipt.server_version}" if receipt.server_version else ""),
        ("compared", _compared(receipt)),
        *((what, _seconds(receipt, what)) for what in receipt.seconds),
        ("reason", receipt.reason),
        ("said by", receipt.by),
        ("told by store", receipt.copy_of),
        ("written", f"{receipt.written_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("by", f"pgsteward {receipt.pgsteward_version}"),
    ]
    said = "\n".join(f"- {_plain(difference)}" for difference in receipt.differences)
    before = f"`{receipt.previous_sha256}`" if receipt.previous_sha256 else "none, this is the first one"
    return "\n".join(
        [
            f"# {_WHAT[receipt.what]} of {_plain(receipt.database)}: {receipt.verdict}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {what} | {_plain(value)} |" for what, value in rows if value),
            *(["", "## What was not as it should be", "", said] if said else []),
            "",
            "## Chain",
            "",
            f"- SHA-256 of this receipt, `{name}`: `{sha256}`",
            f"- SHA-256 of the one before it: {before}",
            "",
            "`pgsteward receipts verify` follows the chain; so does `sha256sum` by hand, file by file.",
            "",
        ]
    )


def _compared(receipt: Receipt) -> str:
    if not receipt.compared:
        return ""
    equal = "all equal" if receipt.proof.equal else "NOT equal"
    return (
        f"{receipt.proof.relations:,} tables and {receipt.proof.rows:,} rows ({receipt.proof.level}): {equal}"
    )


def _seconds(receipt: Receipt, what: str) -> str:
    return humanize_seconds(receipt.seconds[what])


def _plain(text: str) -> str:
    """Return text that breaks neither a table nor a list."""
    return " ".join(text.split()).replace("|", "\\|")
