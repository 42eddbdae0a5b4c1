-- Every table, materialized view and partitioned table of a restored database, catalogs too, for ANALYZE.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
-- ANALYZE of a parent samples its children too, and foreign ones by asking their servers.
  WITH RECURSIVE above_foreign AS (
       SELECT i.inhparent AS oid
         FROM pg_inherits AS i
         JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE c.relkind = 'f'
        UNION
       SELECT i.inhparent
         FROM above_foreign AS a
         JOIN pg_inherits AS i ON i.inhrelid = a.oid
       )
SELECT n.nspname::text                                AS schema_name,
       c.relname::text                                AS name,
       c.oid IN (SELECT a.oid FROM above_foreign AS a) AS has_foreign,
       coalesce(pg_relation_size(c.oid), 0)           AS size_bytes
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p')
   AND c.relpersistence <> 't'
 ORDER BY n.nspname, c.relname;
