"""Texts without the secrets in them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHORT = 4
"""A shorter secret is part of many a word, and what is known by its words would not be known any more."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the secrets in it; of short ones, without those that stand alone."""
    for secret in filter(None, secrets):
        if len(secret) < _SHORT:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        else:
            text = text.replace(secret, "***")
    return text
