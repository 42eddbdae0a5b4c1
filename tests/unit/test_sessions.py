"""The pure decisions of session cleanup."""

from __future__ import annotations

import pytest

from pgsteward.config import SessionTable
from pgsteward.errors import ConfigError
from pgsteward.session_checks import choose_expiry
from pgsteward.session_pace import Pace
from pgsteward.session_walk import places_per_page
from pgsteward.sessions import choose_tables

MOST = 10_000


@pytest.mark.parametrize(
    ("width", "took_s", "expected"),
    [
        pytest.param(100, 0.2, 100, id="as-long-as-it-should"),
        pytest.param(100, 0.1, 200, id="half-as-long"),
        pytest.param(100, 0.001, 400, id="grows-four-times-at-most"),
        pytest.param(100, 0.4, 50, id="twice-as-long"),
        pytest.param(100, 60.0, 25, id="shrinks-to-a-quarter-at-most"),
        pytest.param(9_000, 0.1, MOST, id="never-wider-than-allowed"),
        pytest.param(1, 60.0, 1, id="never-less-than-a-row"),
        pytest.param(100, 0.0, 400, id="in-no-time"),
    ],
)
def test_a_batch_becomes_as_wide_as_fits_into_its_time(width: int, took_s: float, expected: int) -> None:
    pace = Pace(aim_s=0.2, most=MOST, width=width)
    pace.adapt(width, took_s)
    assert pace.width == expected


def test_a_batch_that_was_given_up_is_tried_at_a_quarter() -> None:
    pace = Pace(aim_s=0.2, most=MOST, width=100)
    pace.shrink(100)
    assert pace.width == 25


def test_every_row_that_fits_on_a_page_has_a_place() -> None:
    assert places_per_page(8192) > 291  # MaxHeapTuplesPerPage
    assert places_per_page(32768) > 1169


def test_only_tables_on_the_list_are_cleaned() -> None:
    listed = (table(), table(table='app."Log, old"'))
    assert choose_tables(listed, None) == listed
    assert choose_tables(listed, ["sessions"]) == listed[:1]
    assert choose_tables(listed, ['APP."Log, old"']) == listed[1:]
    with pytest.raises(ConfigError, match=r"users is not among the tables"):
        choose_tables(listed, ["public.users"])
    with pytest.raises(ConfigError, match="is not a name"):
        choose_tables(listed, ["users; DROP"])


def table(**settings: str) -> SessionTable:
    return SessionTable.model_validate({"table": "public.sessions", "expires": "expires"} | settings)


@pytest.mark.parametrize(
    ("settings", "type_name", "kind"),
    [
        pytest.param({}, "timestamp with time zone", "timestamptz", id="timestamptz"),
        pytest.param({"time_zone": "UTC"}, "timestamp without time zone", "timestamp", id="timestamp"),
        pytest.param({"unit": "s"}, "integer", "epoch", id="seconds"),
        pytest.param({"unit": "ms"}, "bigint", "epoch", id="milliseconds"),
        pytest.param({"unit": "us"}, "numeric", "epoch", id="microseconds"),
        pytest.param({"unit": "s"}, "double precision", "epoch", id="fractions"),
        pytest.param({"time_zone": "UTC"}, "date", "date", id="date"),
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
        pytest.param({}, "date", "add time_zone", id="date-without-zone"),
        pytest.param({"unit": "s"}, "date", "take unit out", id="date-with-unit"),
        pytest.param({"unit": "s"}, "real", "an expiry is timestamptz", id="too-coarse"),
    ],
)
def test_a_setting_that_does_not_fit_the_type_says_what_to_write(
    settings: dict[str, str], type_name: str | None, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        choose_expiry(table(**settings), type_name)
