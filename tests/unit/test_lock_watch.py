"""How often the lock watch looks."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from pgsteward.backup import lock_watch
from pgsteward.backup.lock_watch import SAMPLE_S, LockWatch
from pgsteward.postgres import Login

TOOK_S = 0.2


@pytest.mark.parametrize(
    ("yield_after_s", "patience_s", "shortest", "longest"),
    [
        pytest.param(None, math.inf, 20 * TOOK_S, math.inf, id="a-20th-of-the-time"),
        pytest.param(None, 3.0, 1.0, 1.0, id="thrice-in-the-wait-for-a-lock"),
        pytest.param(2.4, 60.0, 0.8, 0.8, id="thrice-before-it-gives-way"),
        pytest.param(None, 0.3, SAMPLE_S, SAMPLE_S, id="never-more-than-twice-a-second"),
    ],
)
def test_slow_samples_are_rare_but_no_wait_passes_unseen(
    yield_after_s: float | None,
    patience_s: float,
    shortest: float,
    longest: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    watch = LockWatch(Login("dbname=x"), yield_after_s, patience_s)

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            watch._over.set()
            return True

    now = iter((10.0, 10.0 + TOOK_S))
    monkeypatch.setattr(lock_watch, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(watch, "_wake", Wake())
    monkeypatch.setattr(LockWatch, "_take", lambda self, session: None)
    session: Any = None
    watch._sample_until_over(session)
    assert len(pauses) == 1
    assert shortest <= pauses[0] + 1e-9
    assert pauses[0] <= longest + 1e-9
