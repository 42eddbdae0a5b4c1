-- When a table was last vacuumed, and the rows that died in it since or could not go.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. Any supported PostgreSQL.
SELECT pg_stat_get_last_vacuum_time(c.oid)                       AS last_vacuum,
       pg_stat_get_dead_tuples(c.oid)                            AS dead_rows,
       pg_stat_get_live_tuples(c.oid)                            AS live_rows,
       current_setting('track_counts')::bool                     AS is_counted
  FROM pg_class AS c
 WHERE c.oid = %(oid)s::int8::oid;
