-- Who is connected to some databases.
-- Parameters: databases (text[]). Needs pg_read_all_stats to see the application names of other roles.
SELECT a.pid,
       coalesce(a.usename::text, a.backend_type, 'somebody') AS role_name,
       coalesce(nullif(a.application_name, ''), 'no application_name') AS application
  FROM pg_stat_activity AS a
 WHERE a.datname = ANY (%(databases)s::text[])
 ORDER BY a.pid;
