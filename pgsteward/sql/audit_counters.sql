-- How often each index was scanned, as far as this server has counted.
-- last_idx_scan is there from PostgreSQL 16 on, stats_reset of an index from 19 on.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT s.indexrelid::int8                                                   AS oid,
       s.idx_scan                                                           AS scans,
       s.idx_tup_read                                                       AS tuples_read,
       (to_jsonb(s) ->> 'last_idx_scan')::timestamptz                       AS last_scan_at,
       (to_jsonb(s) ->> 'stats_reset')::timestamptz                         AS reset_at
  FROM pg_stat_user_indexes AS s;
