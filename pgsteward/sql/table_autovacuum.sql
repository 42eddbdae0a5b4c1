-- The autovacuum worker that works on a table or its TOAST table, and whether it is there against wraparound.
-- Parameters: oid (int8) of the table.
-- Other roles' processes are seen with pg_read_all_stats only. Any supported PostgreSQL.
SELECT a.pid,
       a.xact_start::text                                        AS since,
       a.query LIKE '%%(to prevent wraparound)%%'                AS is_for_wraparound
  FROM pg_class AS c
       JOIN pg_stat_progress_vacuum AS p ON p.relid IN (c.oid, nullif(c.reltoastrelid, 0))
       JOIN pg_stat_activity AS a ON a.pid = p.pid
 WHERE c.oid = %(oid)s::int8::oid
   AND p.datname = current_database()
   AND a.backend_type = 'autovacuum worker'
 LIMIT 1;
