-- A dump of this database that pgsteward runs now; it holds a snapshot.
-- Parameters: names (text[]) of its sessions, as LIKE patterns.
-- Needs no privilege; start times of other roles' sessions need pg_read_all_stats.
SELECT a.pid,
       a.application_name,
       a.usename::text                                           AS role_name,
       a.xact_start::text                                        AS since
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.application_name LIKE ANY (%(names)s::text[])
 ORDER BY a.backend_start
 LIMIT 1;
