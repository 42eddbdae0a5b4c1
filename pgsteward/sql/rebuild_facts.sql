-- What a rebuild of some indexes touches, and what tells why their bloat comes back.
-- Sizes of tables are those of the last VACUUM or ANALYZE: nothing here waits for a lock.
-- Parameters: oids (int8[]) of the indexes.
-- Needs no privilege; correlation is NULL without SELECT on the column. Any supported PostgreSQL.
SELECT i.indexrelid::int8                                                   AS oid,
       t.relpages::int8 * current_setting('block_size')::int8               AS table_bytes,
       coalesce(pg_tablespace_location(coalesce(nullif(c.reltablespace, 0), d.dattablespace)), '') AS space,
       coalesce((SELECT f.option_value::int
                   FROM pg_options_to_table(c.reloptions) AS f
                  WHERE f.option_name = 'fillfactor'), 90)                  AS fillfactor,
       format_type(a.atttypid, NULL)                                        AS key_type,
       s.correlation::float8                                                AS correlation
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_class AS t ON t.oid = i.indrelid
       JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
       JOIN pg_database AS d ON d.datname = current_database()
       JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = 1
       LEFT JOIN pg_attribute AS k ON k.attrelid = t.oid AND k.attnum = i.indkey[0] AND k.attnum > 0
       LEFT JOIN pg_stats AS s
              ON s.schemaname = tn.nspname
             AND s.tablename = t.relname
             AND s.attname = k.attname
             AND NOT s.inherited
 WHERE i.indexrelid = ANY (%(oids)s::int8[]::oid[]);
