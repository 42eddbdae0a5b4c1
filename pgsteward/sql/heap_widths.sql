-- Average bytes of a row's values in tables, by the planner's statistics; NULL where some column has none.
-- Parameters: oids (int8[]) of the tables; names (name[]) of them, without which pg_stats asks for the rights
-- on every column of the database.
-- Statistics are shown for columns that our role may SELECT. PostgreSQL 15+.
SELECT a.attrelid::int8                                                     AS oid,
       CASE WHEN count(s.avg_width) = count(*)
            THEN sum((1 - s.null_frac) * s.avg_width)::float8 END           AS width
  FROM pg_attribute AS a
       JOIN pg_class AS t ON t.oid = a.attrelid
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
       LEFT JOIN pg_stats AS s
              ON s.schemaname = n.nspname
             AND s.tablename = t.relname
             AND s.attname = a.attname
             AND s.tablename = ANY (%(names)s::name[])
             AND NOT s.inherited
 WHERE a.attrelid = ANY (%(oids)s::int8[]::oid[])
   AND a.attnum > 0
   AND NOT a.attisdropped
 GROUP BY a.attrelid;
