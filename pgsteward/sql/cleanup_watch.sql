-- Who waits for the session that deletes, whether others write, and the replica that is furthest behind.
-- Parameters: pid (int4) of that session.
-- How far replicas are behind is NULL without pg_read_all_stats. Any supported PostgreSQL, not on a standby.
SELECT w.waiting,
       w.others_write,
       r.application_name                                     AS replica,
       coalesce(r.lag_bytes, 0)::int8                         AS lag_bytes,
       coalesce(r.hidden, 0)                                  AS hidden_replicas
  FROM (
       SELECT count(DISTINCT l.pid)
                FILTER (WHERE NOT l.granted
                          AND %(pid)s = ANY (pg_blocking_pids(l.pid))) AS waiting,
              count(*)
                FILTER (WHERE l.granted
                          AND l.locktype = 'transactionid'
                          AND l.mode = 'ExclusiveLock'
                          AND l.pid <> %(pid)s) > 0            AS others_write
         FROM pg_locks AS l
       ) AS w
       LEFT JOIN (
       SELECT s.application_name,
              pg_wal_lsn_diff(pg_current_wal_lsn(), s.replay_lsn)       AS lag_bytes,
              count(*) FILTER (WHERE s.state IS NULL) OVER ()           AS hidden
         FROM pg_stat_replication AS s
        WHERE coalesce(s.state, 'streaming') IN ('streaming', 'catchup')
        ORDER BY lag_bytes DESC NULLS LAST
        LIMIT 1
       ) AS r ON true;
