-- Relations of this database that somebody holds, or waits for, an ACCESS EXCLUSIVE lock on: their sizes and
-- expressions can't be read without waiting.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT DISTINCT l.relation::int8                                            AS oid
  FROM pg_locks AS l
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.mode = 'AccessExclusiveLock'
   AND l.pid IS DISTINCT FROM pg_backend_pid();
