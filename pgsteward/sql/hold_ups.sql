-- Who would make REINDEX CONCURRENTLY on a table wait: sessions of this database with a snapshot, whatever
-- they read, and everybody with a lock on the table, prepared transactions among them.
-- Not: VACUUM and autovacuum, replication slots, standbys, other databases.
-- Parameters: oid (int8) of the table.
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats. PostgreSQL 15+.
SELECT a.pid,
       NULL::text                                                           AS gid,
       a.usename::text                                                      AS role_name,
       a.application_name,
       a.xact_start::text                                                   AS since,
       a.backend_xmin::text                                                 AS held
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.backend_xmin IS NOT NULL
   AND a.pid <> pg_backend_pid()
   AND a.backend_type <> 'autovacuum worker'
   AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION
SELECT l.pid,
       p.gid,
       coalesce(a.usename::text, p.owner::text),
       a.application_name,
       coalesce(a.xact_start, p.prepared)::text,
       l.virtualtransaction
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
   AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
 ORDER BY since;
