-- Since when the counters of this database count; a crash and a reset of a single table move it too.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT d.stats_reset::text                              AS database_reset,
       b.stats_reset::text                              AS server_reset,
       current_setting('track_counts')::bool            AS is_counted
  FROM pg_stat_bgwriter AS b
       LEFT JOIN pg_stat_database AS d ON d.datname = current_database();
