-- Which indexes find the rows that refer by a foreign key: their first columns are the key's, in any order, each
-- with the key's own operator and in the column's collation. Of a PERIOD the columns before it are enough.
-- Parameters: oids (int8[]) of the constraints; NULL for all. Partitions' own indexes are named under their parent's.
-- Needs no privilege. PostgreSQL 15+.
  WITH RECURSIVE family AS (
       SELECT k.oid                                                         AS top,
              k.oid,
              k.conrelid
         FROM pg_constraint AS k
        WHERE k.contype = 'f'
          AND k.conparentid = 0
          AND (%(oids)s::int8[] IS NULL OR k.oid = ANY (%(oids)s::int8[]::oid[]))
        UNION ALL
       SELECT f.top,
              k.oid,
              k.conrelid
         FROM family AS f
              JOIN pg_constraint AS k ON k.conparentid = f.oid AND k.conrelid <> f.conrelid
       ),
       wanted AS (
       SELECT f.top,
              f.conrelid,
              f.oid <> f.top                                                AS is_of_part,
              u.num,
              o.oprcom                                                      AS operator,
              a.attcollation                                                AS coll,
              count(*) OVER (PARTITION BY f.oid)                            AS columns
         FROM family AS f
              JOIN pg_constraint AS k ON k.oid = f.oid
              CROSS JOIN LATERAL unnest(k.conkey, k.conpfeqop) WITH ORDINALITY AS u (num, operator, place)
              JOIN pg_operator AS o ON o.oid = u.operator
              JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = u.num
        WHERE u.place < cardinality(k.conkey)
           OR NOT coalesce((to_jsonb(k) ->> 'conperiod')::bool, false)
       ),
       offered AS (
       SELECT i.indexrelid,
              i.indrelid,
              i.indpred IS NOT NULL                                         AS is_partial,
              i.indnkeyatts,
              u.num,
              u.coll,
              u.place,
              c.opcfamily                                                   AS family
         FROM pg_index AS i
              JOIN pg_class AS x ON x.oid = i.indexrelid
              JOIN pg_am AS m ON m.oid = x.relam AND m.amname <> 'brin'
              CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[])
                WITH ORDINALITY AS u (num, class, coll, place)
              JOIN pg_opclass AS c ON c.oid = u.class
        WHERE i.indisvalid
          AND i.indrelid IN (SELECT w.conrelid FROM wanted AS w)
       )
SELECT w.top::int8                                                          AS key_oid,
       o.indexrelid::int8                                                   AS oid,
       o.is_partial,
       w.is_of_part
  FROM wanted AS w
       JOIN offered AS o
         ON o.indrelid = w.conrelid
        AND o.num = w.num
        AND o.coll = w.coll
        AND o.place <= w.columns
        AND EXISTS (SELECT FROM pg_amop AS p WHERE p.amopfamily = o.family AND p.amopopr = w.operator)
 GROUP BY w.top, w.columns, w.is_of_part, o.indexrelid, o.is_partial
HAVING count(DISTINCT w.num) = w.columns;
