-- Relations of this database that can't be read now: somebody holds or awaits an exclusive lock on them.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT DISTINCT l.relation::int8                                            AS oid
  FROM pg_locks AS l
 WHERE l.locktype = 'relation'
   AND l.mode = 'AccessExclusiveLock'
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid();
