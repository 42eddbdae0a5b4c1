-- What forbids to replace a database by a rename: it belongs to the database's OID or can't be ended by us.
-- Parameters: database (text). Needs pg_read_all_stats to see the application names of other roles.
SELECT 'replication slot' AS kind, s.slot_name::text AS name
  FROM pg_replication_slots AS s
 WHERE s.database = %(database)s
 UNION ALL
SELECT 'subscription', s.subname::text
  FROM pg_subscription AS s
  JOIN pg_database AS d ON d.oid = s.subdbid
 WHERE d.datname = %(database)s
 UNION ALL
SELECT 'prepared transaction', x.gid
  FROM pg_prepared_xacts AS x
 WHERE x.database = %(database)s
 UNION ALL
SELECT 'session of a superuser', format('pid %%s of %%s', a.pid, a.usename)
  FROM pg_stat_activity AS a
  JOIN pg_roles AS r ON r.oid = a.usesysid AND r.rolsuper
 WHERE a.datname = %(database)s
   AND NOT (SELECT m.rolsuper FROM pg_roles AS m WHERE m.rolname = current_user)
 UNION ALL
SELECT 'session that this role may not end', format('pid %%s of %%s', a.pid, a.usename)
  FROM pg_stat_activity AS a
  JOIN pg_roles AS r ON r.oid = a.usesysid AND NOT r.rolsuper
 WHERE a.datname = %(database)s
   AND NOT pg_has_role(a.usesysid, 'USAGE')
   AND NOT pg_has_role('pg_signal_backend', 'USAGE')
 UNION ALL
SELECT 'running work of pgsteward', format('pid %%s, %%s', a.pid, a.application_name)
  FROM pg_stat_activity AS a
 WHERE a.datname = %(database)s
   AND a.application_name LIKE 'pgsteward %%'
 ORDER BY 1, 2;
