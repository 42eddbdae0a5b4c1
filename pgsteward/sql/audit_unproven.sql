-- Constraints of the application's tables that are there without holding: NOT VALID, or NOT ENFORCED (from 18 on).
-- Those that a partition or a child has from its parent are the parent's.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT k.conname                                                            AS name,
       n.nspname                                                            AS schema,
       t.relname                                                            AS table_name
  FROM pg_constraint AS k
       JOIN pg_class AS t ON t.oid = k.conrelid
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
 WHERE (NOT k.convalidated OR NOT coalesce((to_jsonb(k) ->> 'conenforced')::bool, true))
   AND k.conislocal
   AND k.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname, t.relname, k.conname;
