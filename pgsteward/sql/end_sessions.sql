-- End every client's session of a database; autovacuum leaves by itself.
-- Parameters: database (text). Needs membership in the sessions' roles, or pg_signal_backend.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS ended
  FROM pg_stat_activity AS a
 WHERE a.datname = %(database)s
   AND a.backend_type = 'client backend'
   AND a.pid <> pg_backend_pid();
