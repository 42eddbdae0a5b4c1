"""Roles from pg_dumpall's script: what is read out of it, and what never is."""

from __future__ import annotations

from pgsteward.restore.roles import Membership, parse, split

SCRIPT = r"""
--
-- PostgreSQL database cluster dump
--
\restrict abc;def
SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE ROLE "Odd ""x""; y";
ALTER ROLE "Odd ""x""; y" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS
 PASSWORD 'SCRAM-SHA-256$4096:it''s;a==$b:c' VALID UNTIL 'infinity';
COMMENT ON ROLE "Odd ""x""; y" IS E'a\\b; -- no comment';
CREATE ROLE app;
ALTER ROLE app WITH SUPERUSER INHERIT NOLOGIN;
ALTER ROLE app SET search_path TO 'a', 'b';
ALTER ROLE elsewhere WITH SUPERUSER;
CREATE ROLE pg_mine;
GRANT app TO "Odd ""x""; y" WITH ADMIN OPTION, INHERIT FALSE GRANTED BY postgres;
GRANT app TO other;
CREATE TABLESPACE fast OWNER app LOCATION '/mnt';
GRANT SET ON PARAMETER work_mem TO app;
GRANT SET ON PARAMETER work_mem TO elsewhere;
DROP DATABASE production;
\unrestrict abc
"""


def test_roles_are_read_with_what_belongs_to_them() -> None:
    script = parse(SCRIPT)
    odd, app, own = script.roles
    assert (odd.name, app.name, own.name) == ('Odd "x"; y', "app", "pg_mine")
    assert odd.has_password
    assert "LOGIN" in odd.flags
    assert odd.attributes.endswith("VALID UNTIL 'infinity'")
    assert odd.statements == (r"""COMMENT ON ROLE "Odd ""x""; y" IS E'a\\b; -- no comment'""",)
    assert (app.has_password, app.flags) == (False, {"SUPERUSER", "INHERIT", "NOLOGIN"})
    assert app.statements == (
        "ALTER ROLE app SET search_path TO 'a', 'b'",
        "GRANT SET ON PARAMETER work_mem TO app",
    )
    assert script.memberships == (
        Membership("app", 'Odd "x"; y', "ADMIN OPTION, INHERIT FALSE"),
        Membership("app", "other", ""),
    )


def test_what_is_not_about_new_roles_is_named_and_not_run() -> None:
    others = parse(SCRIPT).others
    assert others == (
        "ALTER ROLE elsewhere",
        "CREATE TABLESPACE fast",
        "GRANT SET ON",
        "DROP DATABASE production",
    )


def test_only_missing_roles_count_and_the_servers_own_never() -> None:
    script = parse(SCRIPT)
    assert [role.name for role in script.missing({"app"})] == ['Odd "x"; y']
    assert [role.name for role in script.missing({"app", 'Odd "x"; y'})] == []


def test_a_statement_can_not_hide_in_another() -> None:
    assert list(split("COMMENT ON ROLE a IS 'x''; DROP ROLE b; --'; SELECT 1")) == [
        "COMMENT ON ROLE a IS 'x''; DROP ROLE b; --'",
        "SELECT 1",
    ]
    script = parse("CREATE ROLE a SUPERUSER; CREATE ROLE b; GRANT a TO b, c; GRANT a TO b;")
    assert [role.name for role in script.roles] == ["b"]
    assert script.others == ("CREATE ROLE a", "GRANT a TO")
    assert len(script.memberships) == 1


def test_a_script_that_ends_early_is_read_as_far_as_it_goes() -> None:
    assert list(split("CREATE ROLE a; -- the end")) == ["CREATE ROLE a"]
    assert list(split("CREATE ROLE a; SELECT 'open")) == ["CREATE ROLE a", "SELECT 'open"]
