"""The pure decisions of session cleanup."""

from __future__ import annotations

import pytest

from pgsteward.config import SessionTable
from pgsteward.errors import ConfigError
from pgsteward.sessions import choose_expiry, page_ranges


@pytest.mark.parametrize(
    ("pages", "batch", "ranges"),
    [
        pytest.param(0, 500, [], id="an-empty-table-has-no-range"),
        pytest.param(1, 500, [(0, 1)], id="one-page"),
        pytest.param(500, 500, [(0, 500)], id="exactly-one-batch"),
        pytest.param(501, 500, [(0, 500), (500, 501)], id="one-page-more"),
        pytest.param(3, 1, [(0, 1), (1, 2), (2, 3)], id="page-by-page"),
    ],
)
def test_ranges_cover_every_page_once(pages: int, batch: int, ranges: list[tuple[int, int]]) -> None:
    assert list(page_ranges(pages, batch)) == ranges


def test_a_batch_of_no_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(page_ranges(10, 0))


def table(**settings: str) -> SessionTable:
    return SessionTable.model_validate({"table": "public.sessions", "expires": "expires", **settings})


@pytest.mark.parametrize(
    ("settings", "type_name", "kind"),
    [
        pytest.param({}, "timestamp with time zone", "timestamptz", id="timestamptz"),
        pytest.param({"time_zone": "UTC"}, "timestamp without time zone", "timestamp", id="timestamp"),
        pytest.param({"unit": "s"}, "integer", "epoch", id="seconds"),
        pytest.param({"unit": "ms"}, "bigint", "epoch", id="milliseconds"),
    ],
)
def test_an_expiry_is_read_by_its_type(settings: dict[str, str], type_name: str, kind: str) -> None:
    assert choose_expiry(table(**settings), type_name).kind == kind


@pytest.mark.parametrize(
    ("settings", "type_name", "advice"),
    [
        pytest.param({}, None, "correct expires", id="no-such-column"),
        pytest.param({}, "timestamp without time zone", "add time_zone", id="timestamp-without-zone"),
        pytest.param({"unit": "s"}, "timestamp without time zone", "take unit out", id="timestamp-with-unit"),
        pytest.param({}, "bigint", 'unit = "s" or unit = "ms"', id="number-without-unit"),
        pytest.param({"time_zone": "UTC"}, "bigint", "take time_zone out", id="number-with-zone"),
        pytest.param(
            {"time_zone": "UTC"}, "timestamp with time zone", "take time_zone", id="instant-with-zone"
        ),
        pytest.param({}, "text", "an expiry is timestamptz", id="text"),
        pytest.param({}, "date", "an expiry is timestamptz", id="date"),
    ],
)
def test_a_setting_that_does_not_fit_the_type_says_what_to_write(
    settings: dict[str, str], type_name: str | None, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        choose_expiry(table(**settings), type_name)
