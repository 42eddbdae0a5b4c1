-- How far a running REINDEX is, and whom it waits for (a pid of 0 is a prepared transaction).
-- current_locker_pid of the progress is not asked: it may name an innocent session.
-- Parameters: pid (int4) of the session that rebuilds.
-- Needs the rights of the same role, or pg_read_all_stats. PostgreSQL 14+.
SELECT a.wait_event_type IS NOT DISTINCT FROM 'Lock'                        AS is_waiting,
       pg_blocking_pids(a.pid)                                              AS blocking_pids,
       p.phase,
       coalesce(nullif(p.blocks_done, 0), nullif(p.tuples_done, 0), p.lockers_done, 0)    AS done,
       coalesce(nullif(p.blocks_total, 0), nullif(p.tuples_total, 0), p.lockers_total, 0) AS total
  FROM pg_stat_activity AS a
       LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = a.pid
 WHERE a.pid = %(pid)s;
