-- Roles with the least rights that pgsteward needs, for PostgreSQL 15 and newer.
-- Run it in the database to look after, as a superuser; again after new schemas' owners appear:
--   psql -d app -v ON_ERROR_STOP=1 -f roles.sql
-- Then give the roles passwords with \password, or let them in by certificate or peer in pg_hba.conf.
-- One role may do all of it: GRANT the others to it and give it CREATEDB. Roles that you don't need, leave out.

DO $roles$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pgsteward_backup', 'pgsteward_maintenance', 'pgsteward_restore']::name[]
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), wanted);
    END LOOP;
END
$roles$;

-- Messages in English, whatever the server's language: advice goes by words.
DO $messages$
BEGIN
    GRANT SET ON PARAMETER lc_messages TO pgsteward_backup, pgsteward_maintenance, pgsteward_restore;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'lc_messages is not yours to grant: messages stay in the language of the server';
END
$messages$;

-- Backup: reads everything, changes nothing. Also good on a standby.
GRANT pg_read_all_data TO pgsteward_backup;
-- Sees which session a waiting dump waits for.
GRANT pg_read_all_stats TO pgsteward_backup;
-- Only where row-level security is used: a dump that policies apply to would miss rows, so it is refused.
-- ALTER ROLE pgsteward_backup BYPASSRLS;

-- Large objects are not part of pg_read_all_data; this covers those there are now.
-- On PostgreSQL 18 and newer also, for every role that makes them:
--   ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT SELECT ON LARGE OBJECTS TO pgsteward_backup;
DO $large_objects$
DECLARE
    large_object oid;
BEGIN
    FOR large_object IN SELECT oid FROM pg_largeobject_metadata
    LOOP
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO pgsteward_backup', large_object);
    END LOOP;
END
$large_objects$;

-- Maintenance: VACUUM, ANALYZE, REINDEX, REFRESH and the clean-up of session tables need what an owner may.
-- pg_maintain (PostgreSQL 17 and newer) is not enough for REINDEX CONCURRENTLY: a rebuild that fails leaves an
-- index behind, and only the owner may drop it.
-- Sees sessions and statistics, and may measure indexes with pgstattuple:
GRANT pg_monitor TO pgsteward_maintenance;

-- Restore: makes databases, owns what it restores in their owners' names, and ends sessions before a swap.
ALTER ROLE pgsteward_restore CREATEDB;
GRANT pg_signal_backend TO pgsteward_restore;
GRANT pg_read_all_stats TO pgsteward_restore;

DO $owners$
DECLARE
    owner record;
BEGIN
    FOR owner IN SELECT r.rolname AS name, r.rolsuper AS is_superuser, o.database
                   FROM (SELECT s.refobjid AS role, false AS database
                           FROM pg_shdepend AS s
                           JOIN pg_database AS b ON b.oid = s.dbid
                          WHERE b.datname = current_database()
                            AND s.refclassid = 'pg_authid'::regclass
                            AND s.deptype = 'o'
                          UNION
                         SELECT c.relowner, false
                           FROM pg_class AS c
                           JOIN pg_namespace AS n ON n.oid = c.relnamespace
                          WHERE n.nspname !~ '^pg_'
                            AND n.nspname <> 'information_schema'
                          UNION
                         SELECT d.datdba, true
                           FROM pg_database AS d
                          WHERE d.datname = current_database()) AS o
                   JOIN pg_roles AS r ON r.oid = o.role
                  WHERE r.rolname !~ '^pg_'
    LOOP
        IF owner.is_superuser THEN
            RAISE NOTICE 'superuser % owns something here: give it to a role without superuser, or let pgsteward leave it alone',
                quote_ident(owner.name);
        ELSIF NOT pg_has_role(owner.name, 'pgsteward_restore', 'MEMBER') THEN  -- nobody is a member in a circle
            EXECUTE format('GRANT %I TO pgsteward_restore', owner.name);
            IF NOT owner.database THEN
                EXECUTE format('GRANT %I TO pgsteward_maintenance', owner.name);
            END IF;
        END IF;
    END LOOP;
END
$owners$;

-- Bloat is measured with this extension (contrib). Without it the bloat step says "unknown".
DO $extension$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgstattuple') THEN
        CREATE EXTENSION IF NOT EXISTS pgstattuple;
    ELSE
        RAISE NOTICE 'pgstattuple is not available here: install the server''s contrib package and run this again';
    END IF;
EXCEPTION WHEN invalid_schema_name THEN
    RAISE NOTICE 'search_path leads to no schema here: run CREATE EXTENSION pgstattuple SCHEMA ...; yourself';
END
$extension$;
