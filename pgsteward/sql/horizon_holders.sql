-- Who keeps dead rows from being removed in this database, oldest first.
-- Parameters: none.
-- Start times of other roles' sessions need pg_read_all_stats. Any supported PostgreSQL.
  WITH held AS (
       SELECT 'session'                                          AS kind,
              a.pid,
              NULL::text                                         AS gid,
              a.usename::text                                    AS role_name,
              a.application_name,
              a.xact_start                                       AS since,
              greatest(age(a.backend_xmin), age(a.backend_xid))  AS age_xids
         FROM pg_stat_activity AS a
        WHERE a.datname = current_database()
          AND a.backend_type <> 'autovacuum worker'
          AND a.pid <> pg_backend_pid()
        UNION ALL
       SELECT 'prepared transaction', NULL, p.gid, p.owner::text, NULL, p.prepared, age(p.transaction)
         FROM pg_prepared_xacts AS p
        WHERE p.database = current_database()
        UNION ALL
       SELECT 'replication slot', NULL, s.slot_name::text, NULL, s.plugin::text, NULL, age(s.xmin)
         FROM pg_replication_slots AS s
        UNION ALL
       SELECT 'standby feedback', r.pid, NULL, r.usename::text, r.application_name, NULL, age(r.backend_xmin)
         FROM pg_stat_replication AS r
       )
SELECT h.kind,
       h.pid,
       h.gid,
       h.role_name,
       h.application_name,
       h.since::text                                             AS since,
       h.age_xids
  FROM held AS h
 WHERE h.age_xids IS NOT NULL
 ORDER BY h.age_xids DESC, h.since;
