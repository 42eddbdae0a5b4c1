-- Foreign keys of the application's tables; those of partitions are their parent's.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
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
              ORDER BY c.place)                                             AS columns
  FROM pg_constraint AS k
       JOIN pg_class AS t ON t.oid = k.conrelid
       JOIN pg_namespace AS n ON n.oid = t.relnamespace
       JOIN pg_class AS ft ON ft.oid = k.confrelid
       JOIN pg_namespace AS fn ON fn.oid = ft.relnamespace
 WHERE k.contype = 'f'
   AND k.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = t.oid
                      AND d.deptype = 'e')
 ORDER BY n.nspname, t.relname, k.conname;
