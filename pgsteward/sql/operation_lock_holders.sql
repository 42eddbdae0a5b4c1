-- The sessions that hold the lock of an operation in this database, oldest first.
-- Parameters: space, key (int8): the lock's two numbers, without sign. Any role; a start needs pg_read_all_stats.
SELECT l.pid,
       a.usename::text       AS role_name,
       a.application_name,
       a.backend_start::text AS since
  FROM pg_locks AS l
  LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.granted
   AND l.objsubid = 2
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.classid = %(space)s::int8::oid
   AND l.objid = %(key)s::int8::oid
 ORDER BY a.backend_start;
