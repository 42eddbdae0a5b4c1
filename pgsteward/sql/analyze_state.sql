-- Every table and materialized view of the application's schemas, with what autovacuum's own rule needs.
-- Leaves are counted for partitioned tables, whose own counters always stay 0.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+; MAINTAIN exists from 17 on.
  WITH RECURSIVE tree AS (
       SELECT i.inhparent AS root,
              i.inhrelid  AS leaf
         FROM pg_inherits AS i
              JOIN pg_class AS p ON p.oid = i.inhparent AND p.relkind = 'p'
        WHERE NOT i.inhdetachpending
        UNION
       SELECT t.root,
              i.inhrelid
         FROM tree AS t
              JOIN pg_inherits AS i ON i.inhparent = t.leaf
        WHERE NOT i.inhdetachpending
       ),
       below AS (
       SELECT t.root,
              array_agg(t.leaf::int8 ORDER BY t.leaf)                       AS leaves,
              max(pg_stat_get_last_autoanalyze_time(t.leaf))                AS last_autoanalyze,
              max(greatest(pg_stat_get_last_analyze_time(t.leaf),
                           pg_stat_get_last_autoanalyze_time(t.leaf)))      AS last_any,
              sum(greatest(l.reltuples, 0))::float8                         AS row_count,
              sum(pg_stat_get_live_tuples(t.leaf))::int8                    AS live_rows,
              sum(pg_stat_get_mod_since_analyze(t.leaf))::int8              AS changed_rows
         FROM tree AS t
              JOIN pg_class AS l ON l.oid = t.leaf AND l.relkind = 'r'
        GROUP BY t.root
       ),
       above AS (
       SELECT t.leaf,
              array_agg(t.root::int8) AS roots
         FROM tree AS t
        GROUP BY t.leaf
       )
SELECT c.oid::int8                                                          AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       c.relkind::text                                                      AS kind,
       o.rolname                                                            AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE')                       AS is_owner,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(c.oid, 'MAINTAIN')
            ELSE false
        END                                                                 AS has_maintain,
       pg_has_role(current_user, d.datdba, 'USAGE')                         AS is_database_owner,
       c.relispopulated                                                     AS is_populated,
       pg_stat_get_last_analyze_time(c.oid)                                 AS last_analyze,
       pg_stat_get_last_autoanalyze_time(c.oid)                             AS last_autoanalyze,
       CASE c.relkind
            WHEN 'p' THEN coalesce(b.row_count, 0)
            ELSE c.reltuples::float8
        END                                                                 AS row_count,
       CASE c.relkind
            WHEN 'p' THEN coalesce(b.live_rows, 0)
            ELSE pg_stat_get_live_tuples(c.oid)
        END                                                                 AS live_rows,
       CASE c.relkind
            WHEN 'p' THEN coalesce(b.changed_rows, 0)
            ELSE pg_stat_get_mod_since_analyze(c.oid)
        END                                                                 AS changed_rows,
       pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
         + pg_stat_get_tuples_deleted(c.oid)                                AS changes,
       coalesce(b.leaves, '{}')                                             AS leaves,
       b.last_autoanalyze                                                   AS leaf_last_autoanalyze,
       b.last_any                                                           AS leaf_last_any,
       coalesce(u.roots, '{}')                                              AS parents,
       coalesce((SELECT f.option_value::float8
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'autovacuum_analyze_threshold'),
                current_setting('autovacuum_analyze_threshold')::float8)    AS base_threshold,
       coalesce((SELECT f.option_value::float8
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'autovacuum_analyze_scale_factor'),
                current_setting('autovacuum_analyze_scale_factor')::float8) AS scale_factor,
       current_setting('track_counts')::bool                                AS is_counted
  FROM pg_class AS c
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_roles AS o ON o.oid = c.relowner
       JOIN pg_database AS d ON d.datname = current_database()
       LEFT JOIN below AS b ON b.root = c.oid
       LEFT JOIN above AS u ON u.leaf = c.oid
 WHERE c.relkind IN ('r', 'p', 'm')
   AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname, c.relname;
