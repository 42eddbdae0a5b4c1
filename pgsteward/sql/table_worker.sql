-- A session that works on a table in a way that only one may: a concurrent build, VACUUM, ANALYZE.
-- Not autovacuum, which has no role and makes way.
-- Parameters: oid (int8) of the table.
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats.
SELECT l.pid,
       a.usename::text                                                      AS role_name,
       a.application_name,
       a.xact_start::text                                                   AS since
  FROM pg_locks AS l
       LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'relation'
   AND l.relation = %(oid)s::int8::oid
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.mode = 'ShareUpdateExclusiveLock'
   AND l.granted
   AND l.pid <> pg_backend_pid()
   AND a.usesysid IS NOT NULL
 LIMIT 1;
