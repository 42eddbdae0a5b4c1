-- One column of a table: its type (of a domain: the type below it) and whether a row may hide from us.
-- Parameters: oid (int8) of the table; column (text).
-- Needs no privilege. Any supported PostgreSQL.
SELECT format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL) AS type_name
  FROM pg_attribute AS a
       JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE a.attrelid = %(oid)s::int8::oid
   AND a.attname = %(column)s
   AND a.attnum > 0
   AND NOT a.attisdropped;
