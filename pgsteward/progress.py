"""How long work tells how far it is, without knowing who listens (rich on a terminal, Prefect, nobody)."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work; must return quickly and never raise."""

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Report a state.

        Args:
            what: What is being done, e.g. ``dumping public.jobs``.
            done: How much is done, in any unit.
            total: How much there is in all; 0 where it is not known.
        """
        ...


def silent(what: str, done: int = 0, total: int = 0) -> None:
    """Report to nobody."""
