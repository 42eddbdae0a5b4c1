-- Foreign keys of the application's tables; those of partitions are their parent's, which names them all.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
  WITH RECURSIVE below AS (
       SELECT k.conrelid                                 AS top,
              k.conrelid                                 AS oid
         FROM pg_constraint AS k
        WHERE k.contype = 'f'
          AND k.conparentid = 0
        UNION
       SELECT b.top,
              h.inhrelid
         FROM below AS b
              JOIN pg_inherits AS h ON h.inhparent = b.oid
              JOIN pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
       ),
       partitions AS (
       SELECT b.top,
              array_agg(b.oid::int8)                     AS oids
         FROM below AS b
        WHERE b.oid <> b.top
        GROUP BY b.top
       )
SELECT k.oid::int8                                                          AS oid,
       k.conname                                                            AS name,
       n.nspname                                                            AS schema,
       t.oid::int8                                                          AS table_oid,
       t.relname                                                            AS table_name,
       t.relkind::text                                                      AS table_kind,
       fn.nspname                                                           AS referenced_schema,
       ft.relname                                                           AS referenced_table,
       ARRAY(SELECT a.attname
               FROM unnest(k.conkey) WITH ORDINALITY AS c (num, place)
                    JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = c.num
              ORDER BY c.place)                                             AS columns,
       coalesce(p.oids, '{}')                                               AS partition_oids
  FROM pg_constraint AS k
       JOIN pg_class AS t ON t.oid = k.conrelid
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
       JOIN pg_class AS ft ON ft.oid = k.confrelid
       JOIN pg_namespace AS fn ON fn.oid = ft.relnamespace
       LEFT JOIN partitions AS p ON p.top = k.conrelid
 WHERE k.contype = 'f'
   AND k.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = t.oid
                      AND d.deptype = 'e')
 ORDER BY n.nspname, t.relname, k.conname;
