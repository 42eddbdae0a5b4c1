-- Schemas that hold a table of a backup beside the live one, by the beginning of their comment.
-- Parameters: mark (text). Any role. Any supported PostgreSQL.
SELECT n.nspname::text                        AS schema_name,
       obj_description(n.oid, 'pg_namespace') AS comment
  FROM pg_namespace AS n
 WHERE starts_with(obj_description(n.oid, 'pg_namespace'), %(mark)s)
 ORDER BY n.nspname;
