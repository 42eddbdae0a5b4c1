-- Who holds, or waits for, ACCESS EXCLUSIVE on a table of this database.
-- Parameters: oid (int8). Needs no privilege. A prepared transaction has no pid. Any supported PostgreSQL.
SELECT l.pid,
       a.usename::text          AS role_name,
       a.application_name::text AS application_name
  FROM pg_locks AS l
  JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
  LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'relation'
   AND l.relation = %(oid)s::int8::oid
   AND l.mode = 'AccessExclusiveLock'
 ORDER BY l.granted DESC, l.pid;
