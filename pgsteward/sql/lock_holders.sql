-- Who holds or awaits a lock on one table, apart from ourselves; a prepared transaction has no pid.
-- Parameters: oid (int8) of the table; own_pids (int4[]).
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats.
SELECT l.pid,
       p.gid,
       a.application_name,
       a.usename                                             AS role_name,
       a.backend_type,
       coalesce(a.xact_start, p.prepared)::text              AS since,
       string_agg(DISTINCT l.mode, ', ' ORDER BY l.mode)     AS modes
  FROM pg_locks AS l
       LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
       LEFT JOIN pg_locks AS x
              ON l.pid IS NULL
             AND x.pid IS NULL
             AND x.locktype = 'transactionid'
             AND x.virtualtransaction = l.virtualtransaction
       LEFT JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
 WHERE l.locktype = 'relation'
   AND l.relation = %(oid)s::int8::oid
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.granted
   AND (l.pid IS NULL OR l.pid <> ALL (%(own_pids)s::int4[]))
   AND l.pid IS DISTINCT FROM pg_backend_pid()
 GROUP BY l.pid, p.gid, a.application_name, a.usename, a.backend_type, a.xact_start, p.prepared
 ORDER BY since;
