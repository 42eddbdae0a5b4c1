-- Foreign keys that point at some tables, and those that point at what they delete from by cascade.
-- Parameters: oids (int8[]) of the tables.
-- Needs no privilege. Any supported PostgreSQL.
  WITH RECURSIVE pointing AS (
       SELECT k.oid,
              k.conrelid,
              k.confdeltype
         FROM pg_constraint AS k
        WHERE k.contype = 'f'
          AND k.conparentid = 0
          AND k.confrelid = ANY (%(oids)s::int8[]::oid[])
        UNION
       SELECT k.oid,
              k.conrelid,
              k.confdeltype
         FROM pointing AS p
              JOIN pg_constraint AS k ON k.confrelid = p.conrelid
        WHERE p.confdeltype = 'c'
          AND k.contype = 'f'
          AND k.conparentid = 0
       )
SELECT k.oid::int8                                            AS oid,
       k.conname                                              AS name,
       k.confdeltype::text                                    AS action,
       k.conrelid::int8                                       AS table_oid,
       n.nspname                                              AS schema,
       c.relname                                              AS table_name,
       k.confrelid::int8                                      AS parent_oid,
       pn.nspname                                             AS parent_schema,
       pc.relname                                             AS parent_name,
       ARRAY(SELECT a.attname::text
               FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
                    JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
              ORDER BY u.place)                               AS columns,
       ARRAY(SELECT a.attname::text
               FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, place)
                    JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
              ORDER BY u.place)                               AS parent_columns
  FROM pointing AS p
       JOIN pg_constraint AS k ON k.oid = p.oid
       JOIN pg_class AS c ON c.oid = k.conrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_class AS pc ON pc.oid = k.confrelid
       JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace
 ORDER BY n.nspname, c.relname, k.conname;
