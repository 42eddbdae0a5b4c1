-- Who waits for a lock on a table because of our sessions, and what our sessions themselves wait for.
-- Parameters: ours (text[]: application names, as LIKE patterns).
-- ACCESS EXCLUSIVE is the only mode that a dump's and a proof's ACCESS SHARE is in the way of. A blocker with
-- pid 0 is a prepared transaction. Needs no privilege. PostgreSQL 14 and later (waitstart).
  WITH ours AS (
SELECT a.pid
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.pid <> pg_backend_pid()
   AND a.application_name LIKE ANY (%(ours)s::text[])
     )
SELECT w.pid,
       w.pid IN (SELECT o.pid FROM ours AS o)                                        AS is_ours,
       a.usename::text                                                               AS role_name,
       coalesce(nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'), '') AS application_name,
       w.relation::int8                                                              AS relation_oid,
       n.nspname::text                                                               AS schema_name,
       c.relname::text                                                               AS name,
       coalesce(extract(epoch FROM clock_timestamp() - w.waitstart), 0)::float8      AS waited_s,
       b.pids                                                                        AS blocking_pids
  FROM pg_locks AS w
  JOIN pg_database AS d ON d.oid = w.database AND d.datname = current_database()
 CROSS JOIN LATERAL (SELECT pg_blocking_pids(w.pid) AS pids) AS b
  LEFT JOIN pg_stat_activity AS a ON a.pid = w.pid
  LEFT JOIN pg_class AS c ON c.oid = w.relation
  LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE w.locktype = 'relation'
   AND NOT w.granted
   AND (w.pid IN (SELECT o.pid FROM ours AS o)
     OR w.mode = 'AccessExclusiveLock' AND b.pids && ARRAY(SELECT o.pid FROM ours AS o));
