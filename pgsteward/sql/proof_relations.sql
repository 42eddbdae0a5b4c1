-- Every table, materialized view and foreign table that belongs to users, with what a proof needs to read it.
-- Parameters: with_columns (bool): without them, who only counts rows has half of the work.
-- Any role may run it. PostgreSQL 12 and later.
-- Columns come by name: a restored inheritance child may have them in another order. Virtual generated
-- columns are left out: nothing of them is stored; and nothing of stored ones is dumped, so they are told apart.
-- Where an extension calls a table its configuration, its rows are dumped, by the condition that it gives ('' for
-- all of them); condition is NULL where it does not.
-- Types are resolved through domains; NULL is any type that is not PostgreSQL's own. A read of a table locks its
-- indexes too, hence their number.
  WITH RECURSIVE domains AS (
       SELECT t.oid, t.typbasetype AS base
         FROM pg_type AS t
        WHERE t.typtype = 'd'
        UNION ALL
       SELECT d.oid, t.typbasetype
         FROM domains AS d
         JOIN pg_type AS t ON t.oid = d.base
        WHERE t.typtype = 'd'
       ),
       bases AS (
       SELECT d.oid, d.base
         FROM domains AS d
         JOIN pg_type AS t ON t.oid = d.base
        WHERE t.typtype <> 'd'
       )
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
       (SELECT e.extcondition[array_position(e.extconfig, c.oid)]
          FROM pg_extension AS e
         WHERE c.oid = ANY (e.extconfig)
           AND c.relkind = 'r')                           AS condition,
       (SELECT count(*)
          FROM pg_index AS i
         WHERE i.indrelid = c.oid)                        AS index_count,
       coalesce(k.column_names, '{}')                     AS column_names,
       coalesce(k.column_types, '{}')                     AS column_types,
       coalesce(k.generated, '{}')                        AS generated
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (
       SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C") AS column_names,
              array_agg(t.typname::text ORDER BY a.attname::text COLLATE "C") AS column_types,
              array_agg(a.attgenerated = 's' ORDER BY a.attname::text COLLATE "C") AS generated
         FROM pg_attribute AS a
         LEFT JOIN bases AS b ON b.oid = a.atttypid
         LEFT JOIN pg_type AS t ON t.oid = coalesce(b.base, a.atttypid)
                               AND t.typnamespace = 'pg_catalog'::regnamespace
        WHERE a.attrelid = c.oid
          AND a.attnum > 0
          AND NOT a.attisdropped
          AND a.attgenerated <> 'v') AS k ON %(with_columns)s
 WHERE c.relkind IN ('r', 'm', 'f')
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname;
