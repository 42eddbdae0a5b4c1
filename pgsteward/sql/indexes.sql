-- Every index of the application's schemas, with what decides whether it can be measured and rebuilt.
-- Nothing here waits for a lock: sizes are asked for afterwards.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT i.indexrelid::int8                                                   AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       t.oid::int8                                                          AS table_oid,
       tn.nspname                                                           AS table_schema,
       t.relname                                                            AS table_name,
       am.amname                                                            AS method,
       o.rolname                                                            AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE')                       AS is_owner,
       i.indisvalid                                                         AS is_valid,
       i.indisexclusion                                                     AS is_exclusion,
       c.relpersistence = 't'                                               AS is_temporary,
       coalesce((SELECT f.option_value::float8
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'fillfactor'), 90)                  AS fillfactor,
       coalesce(pg_stat_get_dead_tuples(t.oid), 0)                          AS dead_rows,
       coalesce(pg_stat_get_live_tuples(t.oid), 0)                          AS live_rows
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_class AS t ON t.oid = i.indrelid
       JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
       JOIN pg_am AS am ON am.oid = c.relam
       JOIN pg_roles AS o ON o.oid = c.relowner
 WHERE c.relkind = 'i'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname, c.relname;
