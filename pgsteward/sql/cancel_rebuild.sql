-- Cancel a rebuild of our own; no row when it has ended, and never another one that got its pid.
-- Parameters: pid (int4), backend_start (text) of the session that rebuilds.
-- Needs the rights of the same role. Any supported PostgreSQL.
SELECT pg_cancel_backend(a.pid) AS is_cancelled
  FROM pg_stat_activity AS a
 WHERE a.pid = %(pid)s
   AND a.backend_start = %(backend_start)s::timestamptz
   AND a.datname = current_database()
   AND a.application_name = 'pgsteward reindex'
   AND a.state = 'active';
