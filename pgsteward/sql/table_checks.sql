-- CHECK constraints of users' tables, but for those that go with a parent's.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS table_name,
       k.conname::text AS name
  FROM pg_constraint AS k
  JOIN pg_class AS c ON c.oid = k.conrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE k.contype = 'c'
   AND k.coninhcount = 0
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT
                     FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY n.nspname, c.relname, k.conname;
