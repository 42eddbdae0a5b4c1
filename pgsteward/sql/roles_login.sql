-- One login for all of it, the one of the configuration: backup, maintenance and restore.
-- Leave this out if the configuration names the three roles instead.
DO $login$
DECLARE
    login   CONSTANT name := {login};
    granted name;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
        EXECUTE format('CREATE ROLE %I LOGIN', login);
    END IF;
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = login) THEN
        RAISE NOTICE '% is a superuser and may do everything; a role of its own for pgsteward is safer',
            quote_ident(login);
        RETURN;
    END IF;
    EXECUTE format('ALTER ROLE %I CREATEDB', login);
    FOREACH granted IN ARRAY ARRAY['pgsteward_backup', 'pgsteward_maintenance', 'pgsteward_restore']::name[]
    LOOP
        -- It owns something here, so the role above became its member; nobody can be a member in a circle.
        IF pg_has_role(granted, login, 'MEMBER') THEN
            EXECUTE format('REVOKE %I FROM %I', login, granted);
        END IF;
        EXECUTE format('GRANT %I TO %I', granted, login);
    END LOOP;
END
$login$;
