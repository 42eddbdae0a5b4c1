-- Roles that own something in this database, and whether this role may make things in their names.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT o.role::regrole::text                                     AS quoted,
       pg_get_userbyid(o.role)::text                             AS owner,
       r.rolsuper                                                AS is_superuser,
       pg_has_role(current_user, o.role, 'USAGE')                AS has_rights
  FROM (SELECT d.refobjid AS role
          FROM pg_shdepend AS d
         WHERE d.dbid = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
           AND d.refclassid = 'pg_authid'::regclass
           AND d.deptype = 'o'
         UNION
        -- what the bootstrap superuser owns is not in pg_shdepend; extensions' parts and catalogs don't count
        SELECT c.relowner
          FROM pg_class AS c
               JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname !~ '^pg_'
           AND n.nspname <> 'information_schema'
           AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e')
         UNION
        SELECT t.typowner
          FROM pg_type AS t
               JOIN pg_namespace AS n ON n.oid = t.typnamespace
         WHERE n.nspname !~ '^pg_'
           AND n.nspname <> 'information_schema'
           AND t.typtype IN ('e', 'd', 'r')
           AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = t.oid AND e.deptype = 'e')
         UNION
        SELECT p.proowner
          FROM pg_proc AS p
               JOIN pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname !~ '^pg_'
           AND n.nspname <> 'information_schema'
           AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = p.oid AND e.deptype = 'e')
         UNION
        SELECT m.lomowner FROM pg_largeobject_metadata AS m) AS o
       JOIN pg_roles AS r ON r.oid = o.role
 WHERE r.rolname !~ '^pg_'
 ORDER BY owner;
