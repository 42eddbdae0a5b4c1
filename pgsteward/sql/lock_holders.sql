-- Who holds a lock on one table, apart from ourselves; a prepared transaction has no pid.
-- Parameters: oid (int8) of the table; below (bool): or on anything that inherits from it; own_pids (int4[]).
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats.
  WITH RECURSIVE tree AS (
       SELECT %(oid)s::int8::oid AS oid
        UNION
       SELECT i.inhrelid
         FROM tree AS t
              JOIN pg_inherits AS i ON i.inhparent = t.oid
        WHERE %(below)s::bool
       )
SELECT l.pid,
       p.gid,
       a.application_name,
       a.usename                                             AS role_name,
       a.backend_type,
       coalesce(a.xact_start, p.prepared)::text              AS since,
       c.oid::int8                                           AS oid,
       n.nspname                                             AS schema,
       c.relname                                             AS name,
       array_agg(DISTINCT l.mode)                            AS modes
  FROM tree AS t
       JOIN pg_locks AS l ON l.relation = t.oid
       JOIN pg_class AS c ON c.oid = t.oid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
       LEFT JOIN pg_locks AS x
              ON l.pid IS NULL
             AND x.pid IS NULL
             AND x.locktype = 'transactionid'
             AND x.virtualtransaction = l.virtualtransaction
       LEFT JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.granted
   AND (l.pid IS NULL OR l.pid <> ALL (%(own_pids)s::int4[]))
   AND l.pid IS DISTINCT FROM pg_backend_pid()
 GROUP BY l.pid, p.gid, a.application_name, a.usename, a.backend_type, a.xact_start, p.prepared, c.oid, n.nspname
 ORDER BY since, c.relname;
