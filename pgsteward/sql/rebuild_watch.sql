-- How far a running REINDEX is, and whom it waits for (a pid of 0 is a prepared transaction).
-- Parameters: pid (int4) of the session that rebuilds.
-- Needs the rights of the same role, or pg_read_all_stats. PostgreSQL 15+.
SELECT a.wait_event_type IS NOT DISTINCT FROM 'Lock'                        AS is_waiting,
       pg_blocking_pids(a.pid)                                              AS blocking_pids,
       p.phase,
       coalesce(p.blocks_done, 0)                                           AS blocks_done,
       coalesce(p.blocks_total, 0)                                          AS blocks_total
  FROM pg_stat_activity AS a
       LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = a.pid
 WHERE a.pid = %(pid)s;
