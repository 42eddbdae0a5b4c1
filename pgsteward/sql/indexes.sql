-- Every index of the application's schemas, with what decides whether it can be measured and rebuilt.
-- Nothing here waits for a lock: sizes are asked for afterwards. Temporary ones are others' own business.
-- Parameters: toast (bool): those of TOAST tables as well.
-- Needs no privilege. PostgreSQL 15+.
SELECT i.indexrelid::int8                                                   AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       i.indrelid::int8                                                     AS table_oid,
       am.amname                                                            AS method,
       pg_get_userbyid(c.relowner)                                          AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE')                       AS is_owner,
       i.indisvalid                                                         AS is_valid,
       i.indisexclusion                                                     AS is_exclusion,
       i.indisunique                                                        AS is_unique,
       i.indpred IS NOT NULL                                                AS is_partial,
       c.relpersistence = 'u'                                               AS is_unlogged,
       c.relfilenode::int8                                                  AS filenode,
       c.reltuples::float8                                                  AS row_count,
       coalesce((SELECT f.option_value::float8
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'fillfactor'), 90)                  AS fillfactor,
       coalesce((SELECT f.option_value::bool
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'deduplicate_items'), true)         AS deduplicates
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_am AS am ON am.oid = c.relam
 WHERE c.relkind = 'i'
   AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (n.nspname <> 'pg_toast'
        OR (%(toast)s AND EXISTS (SELECT FROM pg_class AS u
                                         JOIN pg_namespace AS un ON un.oid = u.relnamespace
                                   WHERE u.reltoastrelid = i.indrelid
                                     AND un.nspname NOT IN ('pg_catalog', 'information_schema'))))
 ORDER BY n.nspname, c.relname;
