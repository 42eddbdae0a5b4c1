-- End every client's session of some databases; autovacuum leaves by itself.
-- Parameters: databases (text[]). Needs membership in the sessions' roles, or pg_signal_backend.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS ended
  FROM pg_stat_activity AS a
 WHERE a.datname = ANY (%(databases)s::text[])
   AND a.backend_type = 'client backend'
   AND a.pid <> pg_backend_pid();
