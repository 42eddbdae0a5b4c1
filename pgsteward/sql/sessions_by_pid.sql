-- Who some sessions are, apart from ours.
-- Parameters: pids (int4[]), ours (text[]: application names, as LIKE patterns).
-- Needs pg_read_all_stats to see the application names of other roles. Any supported PostgreSQL.
SELECT a.pid,
       a.usename::text          AS role_name,
       a.application_name::text AS application_name
  FROM pg_stat_activity AS a
 WHERE a.pid = ANY (%(pids)s::int4[])
   AND (a.application_name IS NULL OR a.application_name NOT LIKE ALL (%(ours)s::text[]))
 ORDER BY a.pid;
