"""What an archive's script holds that is the server's own and no part of a schema."""

from __future__ import annotations

import pytest

from pgsteward.backup.archive import without_versions

TABLE = b"CREATE TABLE public.t (\n    a integer\n);\n"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        pytest.param(
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=40833320);\n", b"", id="alone"
        ),
        pytest.param(
            b'ALTER TABLE ONLY public."a SET (" ALTER COLUMN "b c" SET (pg_attver=7, n_distinct=5);\n',
            b'ALTER TABLE ONLY public."a SET (" ALTER COLUMN "b c" SET (n_distinct=5);\n',
            id="first-of-two",
        ),
        pytest.param(
            b"ALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a SET (n_distinct=-0.5, pg_attver=7);\n",
            b"ALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a SET (n_distinct=-0.5);\n",
            id="last-of-two",
        ),
        pytest.param(
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);\n",
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);\n",
            id="a-persons-own-option",
        ),
        pytest.param(
            b"COMMENT ON TABLE public.t IS 'pg_attver=7';\n",
            b"COMMENT ON TABLE public.t IS 'pg_attver=7';\n",
            id="a-comment",
        ),
    ],
)
def test_a_servers_versions_of_columns_are_no_part_of_a_schema(lines: bytes, left: bytes) -> None:
    assert without_versions(TABLE + lines + TABLE) == TABLE + left + TABLE
