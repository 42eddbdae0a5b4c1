-- Every table and materialized view with what decides whether it needs a VACUUM: the age of its oldest
-- transaction and multixact, dead rows beside autovacuum's own threshold, all-visible pages; TOAST included.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+; MAINTAIN exists from 17 on, autovacuum_vacuum_max_threshold from 18 on.
  WITH server AS (
       SELECT current_setting('autovacuum_freeze_max_age')::float8                AS freeze_max_age,
              current_setting('autovacuum_multixact_freeze_max_age')::float8      AS multixact_freeze_max_age,
              current_setting('vacuum_failsafe_age')::float8                      AS failsafe_age,
              current_setting('vacuum_multixact_failsafe_age')::float8            AS multixact_failsafe_age,
              current_setting('autovacuum_vacuum_threshold')::float8              AS base_threshold,
              current_setting('autovacuum_vacuum_scale_factor')::float8           AS scale_factor,
              coalesce(current_setting('autovacuum_vacuum_max_threshold', true)::float8, -1) AS max_threshold,
              current_setting('autovacuum')::bool                                 AS is_on,
              current_setting('track_counts')::bool                               AS is_counted
       ),
       heap AS (
       SELECT c.oid,
              c.relnamespace,
              c.relname,
              c.relkind,
              c.relowner,
              c.relisshared,
              c.relpersistence,
              c.reltoastrelid,
              c.relpages,
              c.relallvisible,
              c.reltuples,
              c.relfrozenxid,
              c.relminmxid,
              coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value)
                          FROM pg_options_to_table(c.reloptions) AS o), '{}')     AS options
         FROM pg_class AS c
        WHERE c.relkind IN ('r', 'm', 't')
       ),
       rule AS (
       SELECT h.oid,
              greatest(h.reltuples, 0)::float8                                    AS row_count,
              pg_stat_get_dead_tuples(h.oid)                                      AS dead_rows,
              age(h.relfrozenxid)                                                 AS xid_age,
              mxid_age(h.relminmxid)                                              AS multixact_age,
              least(s.freeze_max_age, (o.options ->> 'autovacuum_freeze_max_age')::float8)
                                                                                  AS freeze_max_age,
              least(s.multixact_freeze_max_age,
                    (o.options ->> 'autovacuum_multixact_freeze_max_age')::float8)
                                                                                  AS multixact_freeze_max_age,
              coalesce((o.options ->> 'autovacuum_vacuum_threshold')::float8, s.base_threshold)
              + coalesce((o.options ->> 'autovacuum_vacuum_scale_factor')::float8, s.scale_factor)
              * greatest(h.reltuples, 0)                                          AS threshold,
              coalesce((o.options ->> 'autovacuum_vacuum_max_threshold')::float8, s.max_threshold)
                                                                                  AS max_threshold,
              s.is_on AND coalesce((o.options ->> 'autovacuum_enabled')::bool, true) AS is_reached
         FROM heap AS h
              CROSS JOIN server AS s
              LEFT JOIN heap AS m ON m.reltoastrelid = h.oid AND h.relkind = 't'
              CROSS JOIN LATERAL (SELECT coalesce(m.options, '{}') || h.options AS options) AS o
       )
SELECT h.oid::int8                                                                AS oid,
       n.nspname                                                                  AS schema,
       h.relname                                                                  AS name,
       h.relkind::text                                                            AS kind,
       o.rolname                                                                  AS owner,
       pg_has_role(current_user, h.relowner, 'USAGE')                             AS is_owner,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(h.oid, 'MAINTAIN')
            ELSE false
        END                                                                       AS has_maintain,
       pg_has_role(current_user, d.datdba, 'USAGE') AND NOT h.relisshared         AS is_database_owner,
       h.relisshared                                                              AS is_shared,
       n.nspname IN ('pg_catalog', 'information_schema')                          AS is_catalog,
       h.relpersistence = 't'                                                     AS is_temporary,
       greatest(r.xid_age, t.xid_age)                                             AS xid_age,
       greatest(r.multixact_age, t.multixact_age)                                 AS multixact_age,
       least(r.freeze_max_age, t.freeze_max_age)                                  AS freeze_max_age,
       least(r.multixact_freeze_max_age, t.multixact_freeze_max_age)              AS multixact_freeze_max_age,
       s.failsafe_age,
       s.multixact_failsafe_age,
       coalesce(t.xid_age > r.xid_age OR t.multixact_age > r.multixact_age, false) AS is_toast_older,
       r.row_count,
       r.dead_rows,
       CASE WHEN r.max_threshold >= 0 THEN least(r.threshold, r.max_threshold) ELSE r.threshold END
                                                                                  AS dead_threshold,
       coalesce(t.dead_rows, 0)                                                   AS toast_dead_rows,
       CASE WHEN t.max_threshold >= 0 THEN least(t.threshold, t.max_threshold)
            ELSE coalesce(t.threshold, 0)
        END                                                                       AS toast_dead_threshold,
       r.is_reached AND coalesce(t.is_reached, true)                              AS is_reached,
       h.relpages                                                                 AS pages,
       least(h.relallvisible, h.relpages)                                         AS visible_pages,
       coalesce((SELECT sum(pg_stat_get_numscans(i.indexrelid))
                   FROM pg_index AS i
                  WHERE i.indrelid = h.oid), 0)::int8                             AS index_scans,
       pg_stat_get_numscans(h.oid)                                                AS table_scans,
       s.is_counted
  FROM heap AS h
       CROSS JOIN server AS s
       JOIN rule AS r ON r.oid = h.oid
       LEFT JOIN rule AS t ON t.oid = h.reltoastrelid
       JOIN pg_namespace AS n ON n.oid = h.relnamespace
       JOIN pg_roles AS o ON o.oid = h.relowner
       JOIN pg_database AS d ON d.datname = current_database()
 WHERE h.relkind <> 't'
 ORDER BY n.nspname, h.relname;
