-- The key of a table, and the index that begins with its expiry column: neither is needed, both are told.
-- Parameters: oid (int8) of the table; column (text).
-- Needs no privilege. Any supported PostgreSQL.
SELECT ARRAY(SELECT a.attname::text
               FROM pg_index AS i
                    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE i.indrelid = %(oid)s::int8::oid
                AND i.indisprimary
                AND k.place <= i.indnkeyatts
              ORDER BY k.place)                               AS key_columns,
       (SELECT x.relname::text
          FROM pg_index AS i
               JOIN pg_class AS x ON x.oid = i.indexrelid
               JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = %(oid)s::int8::oid
           AND i.indisvalid
           AND a.attname = %(column)s
         ORDER BY x.relname
         LIMIT 1)                                             AS expiry_index;
