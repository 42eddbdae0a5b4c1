-- The type of one column of a table; of a domain the type that it stands on.
-- Parameters: oid (int8) of the table; column (text).
-- Needs no privilege. Any supported PostgreSQL.
  WITH RECURSIVE ground AS (
       SELECT a.atttypid                      AS type_oid
         FROM pg_attribute AS a
        WHERE a.attrelid = %(oid)s::int8::oid
          AND a.attname = %(column)s
          AND a.attnum > 0
          AND NOT a.attisdropped
        UNION ALL
       SELECT t.typbasetype
         FROM ground AS g
              JOIN pg_type AS t ON t.oid = g.type_oid
        WHERE t.typtype = 'd'
       )
SELECT format_type(t.oid, NULL)               AS type_name
  FROM ground AS g
       JOIN pg_type AS t ON t.oid = g.type_oid
 WHERE t.typtype <> 'd';
