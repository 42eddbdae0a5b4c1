-- How far standbys and subscribers are behind, the worst first; what was never told about replay is left out.
-- Parameters: none.
-- Needs pg_read_all_stats: without it nothing but a pid is shown, and is_hidden is true. Primaries only.
SELECT r.pid,
       r.application_name,
       r.client_addr::text                                                  AS address,
       pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)::int8            AS lag_bytes,
       extract(epoch FROM r.replay_lag)::float8                             AS lag_s,
       r.state IS NULL                                                      AS is_hidden
  FROM pg_stat_replication AS r
 WHERE r.replay_lsn IS NOT NULL
    OR r.state IS NULL
 ORDER BY lag_bytes DESC NULLS LAST;
