-- Every table, materialized view and TOAST table of the application's schemas that holds rows itself.
-- Nothing here waits for a lock: sizes are asked for afterwards. Temporary ones are others' own business.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT t.oid::int8                                                          AS oid,
       coalesce(un.nspname, n.nspname)                                      AS schema,
       coalesce(u.relname, t.relname)                                       AS name,
       t.relkind = 't'                                                      AS is_toast,
       am.amname                                                            AS method,
       t.relpersistence = 'u'                                               AS is_unlogged,
       t.relfilenode::int8                                                  AS filenode,
       t.reltuples::float8                                                  AS row_count,
       t.relpages                                                           AS pages,
       t.relallvisible                                                      AS visible_pages,
       coalesce((SELECT f.option_value::float8
                   FROM pg_options_to_table(t.reloptions) AS f
                  WHERE f.option_name = 'fillfactor'), 100)                 AS fillfactor,
       coalesce(pg_stat_get_dead_tuples(t.oid), 0)                          AS dead_rows,
       coalesce(pg_stat_get_live_tuples(t.oid), 0)                          AS live_rows,
       pg_stat_get_tuples_inserted(t.oid) >= pg_stat_get_live_tuples(t.oid)
         AND pg_stat_get_live_tuples(t.oid) > 0
         AND pg_stat_get_tuples_updated(t.oid) + pg_stat_get_tuples_deleted(t.oid)
             + pg_stat_get_dead_tuples(t.oid) = 0                           AS was_only_filled
  FROM pg_class AS t
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
       JOIN pg_am AS am ON am.oid = t.relam
       LEFT JOIN pg_class AS u ON t.relkind = 't' AND u.reltoastrelid = t.oid
       LEFT JOIN pg_namespace AS un ON un.oid = u.relnamespace
 WHERE t.relkind IN ('r', 'm', 't')
   AND t.relpersistence <> 't'
   AND coalesce(un.nspname, n.nspname) NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname, t.relname;
