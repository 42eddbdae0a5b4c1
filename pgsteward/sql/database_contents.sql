-- Whether a database has anything that maintenance looks at.
-- Parameters: none. Any role: the catalogs show everybody's relations. Any supported PostgreSQL.
SELECT count(*) FILTER (WHERE c.relkind IN ('r', 'p', 'm')) > 0 AS tables,
       count(*) FILTER (WHERE c.relkind IN ('i', 'I')) > 0      AS indexes
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema';
