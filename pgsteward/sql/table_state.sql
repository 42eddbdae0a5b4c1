-- What a table is, whether its rows refer to each other, and the columns of its best key: the primary key, or else a unique one without NULLs.
-- Parameters: schema (text), name (text). Any role may run it. Any supported PostgreSQL.
SELECT c.oid::int8                         AS oid,
       c.relkind::text                     AS kind,
       EXISTS (
           SELECT
             FROM pg_constraint AS f
            WHERE f.contype = 'f'
              AND f.conrelid = c.oid
              AND f.confrelid = c.oid)     AS refers_to_itself,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest(best.indkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
         WHERE k.place <= best.indnkeyatts) AS key_columns
  FROM pg_class AS c
  LEFT JOIN LATERAL (
       SELECT i.indkey::int2[] AS indkey,
              i.indnkeyatts
         FROM pg_index AS i
        WHERE i.indrelid = c.oid
          AND i.indisunique
          AND i.indisvalid
          AND i.indimmediate
          AND i.indpred IS NULL
          AND i.indexprs IS NULL
          AND NOT EXISTS (
              SELECT
                FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
               WHERE k.place <= i.indnkeyatts
                 AND NOT a.attnotnull)
        ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
        LIMIT 1) AS best ON true
 WHERE c.oid = to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s::text));
