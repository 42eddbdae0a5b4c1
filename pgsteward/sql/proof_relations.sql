-- Every table, materialized view and foreign table that belongs to users, with what a proof needs to read it.
-- Parameters: none. Any role may run it. PostgreSQL 12 and later.
-- Columns come by name: a restored inheritance child may have them in another order. Virtual generated
-- columns are left out: nothing of them is stored.
SELECT c.oid::int8                                        AS oid,
       n.nspname::text                                    AS schema_name,
       c.relname::text                                    AS name,
       c.relkind::text                                    AS kind,
       c.relispopulated                                   AS populated,
       c.relpersistence = 'u'                             AS unlogged,
       c.relpages::int8                                   AS pages,
       (SELECT e.extname::text
          FROM pg_depend AS d
          JOIN pg_extension AS e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_class'::regclass
           AND d.objid = c.oid
           AND d.refclassid = 'pg_extension'::regclass
           AND d.deptype = 'e')                           AS extension_name,
       (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C"), '{}')
          FROM pg_attribute AS a
         WHERE a.attrelid = c.oid
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND a.attgenerated <> 'v')                     AS column_names
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'f')
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname;
