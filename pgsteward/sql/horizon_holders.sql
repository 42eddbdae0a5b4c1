-- Who keeps dead rows of this database from being removed, and ages from moving; the oldest first.
-- A logical slot's catalog_xmin keeps those of catalogs only. VACUUM itself keeps nothing.
-- Parameters: none.
-- Other roles' sessions and standbys are seen with pg_read_all_stats only. Any supported PostgreSQL.
  WITH held AS (
       SELECT 'session'                                          AS kind,
              a.pid,
              NULL::text                                         AS gid,
              a.usename::text                                    AS role_name,
              a.application_name,
              a.state,
              a.xact_start                                       AS since,
              'all'                                              AS holds,
              greatest(age(a.backend_xmin), age(a.backend_xid))  AS age_xids
         FROM pg_stat_activity AS a
        WHERE a.datname = current_database()
          AND a.backend_type <> 'autovacuum worker'
          AND a.pid <> pg_backend_pid()
          AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
        UNION ALL
       SELECT 'prepared transaction', NULL, p.gid, p.owner::text, NULL, NULL, p.prepared, 'all',
              age(p.transaction)
         FROM pg_prepared_xacts AS p
        WHERE p.database = current_database()
        UNION ALL
       SELECT 'replication slot', s.active_pid, s.slot_name::text, NULL, s.plugin::text,
              CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL, x.holds, age(x.xmin)
         FROM pg_replication_slots AS s
              CROSS JOIN LATERAL (VALUES ('all', s.xmin), ('catalogs', s.catalog_xmin)) AS x (holds, xmin)
        UNION ALL
       SELECT 'standby feedback', r.pid, NULL, r.usename::text, r.application_name, r.state, NULL, 'all',
              age(r.backend_xmin)
         FROM pg_stat_replication AS r
       )
SELECT h.kind,
       h.pid,
       h.gid,
       h.role_name,
       h.application_name,
       h.state,
       h.since::text                                             AS since,
       h.holds,
       h.age_xids
  FROM held AS h
 WHERE h.age_xids IS NOT NULL
 ORDER BY h.age_xids DESC, h.since;
