-- Size of each table of the application's schemas with that of its TOAST table, whose index is in it.
-- Waits for an ACCESS EXCLUSIVE lock; locked ones are named by the caller.
-- Parameters: locked (int8[]): tables that are left out.
-- Needs no privilege. PostgreSQL 15+.
SELECT t.oid::int8                                                          AS oid,
       n.nspname                                                            AS schema,
       t.relname                                                            AS name,
       pg_relation_size(t.oid)                                              AS table_bytes,
       coalesce(pg_total_relation_size(nullif(t.reltoastrelid, 0)), 0)      AS toast_bytes
  FROM pg_class AS t
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
 WHERE t.relkind IN ('r', 'm')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
   AND t.oid <> ALL (%(locked)s::int8[]::oid[]);
