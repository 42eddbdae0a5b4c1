-- Who would make REINDEX CONCURRENTLY on a table wait: sessions of this database with a snapshot, whatever
-- they read, and everybody with a lock on the table, prepared transactions among them; and our own dump from when
-- it announces itself, which is before its snapshot.
-- Not: VACUUM and autovacuum (which has no role), replication slots, standbys, other databases.
-- Parameters: oid (int8) of the table; own_pids (int4[]): of our other rebuilds, which tables of their own;
-- announced (int4[]): of our own dump.
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats. PostgreSQL 14+.
SELECT a.pid,
       NULL::text                                                           AS gid,
       a.usename::text                                                      AS role_name,
       a.application_name,
       a.xact_start::text                                                   AS since,
       extract(epoch FROM now() - a.xact_start)::float8                     AS age_s,
       coalesce(a.backend_xmin::text, 'announced')                          AS held
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND (a.backend_xmin IS NOT NULL OR a.pid = ANY (%(announced)s::int4[]))
   AND a.pid <> pg_backend_pid()
   AND a.pid <> ALL (%(own_pids)s::int4[])
   AND a.usesysid IS NOT NULL
   AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION
SELECT l.pid,
       p.gid,
       coalesce(a.usename::text, p.owner::text),
       a.application_name,
       coalesce(a.xact_start, p.prepared)::text,
       extract(epoch FROM now() - coalesce(a.xact_start, p.prepared))::float8,
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
   AND (l.pid IS NULL OR l.pid <> ALL (%(own_pids)s::int4[]))
   AND (l.pid IS NULL OR a.usesysid IS NOT NULL)
 ORDER BY since;
