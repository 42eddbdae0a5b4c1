-- Every sequence whose position a dump holds: those of users, and those that an extension calls configuration.
-- Parameters: none. Any role may run it.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS name
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S'
   AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
   AND (NOT EXISTS (SELECT
                      FROM pg_depend AS d
                     WHERE d.classid = 'pg_class'::regclass
                       AND d.objid = c.oid
                       AND d.deptype = 'e')
     OR EXISTS (SELECT
                  FROM pg_extension AS e
                 WHERE c.oid = ANY (e.extconfig)))
 ORDER BY n.nspname, c.relname;
