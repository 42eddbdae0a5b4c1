-- The columns of one table.
-- Parameters: oid (int8).
-- Needs no privilege. Any supported PostgreSQL.
SELECT a.attname                                                            AS name,
       a.attnotnull                                                         AS is_not_null
  FROM pg_attribute AS a
 WHERE a.attrelid = %(oid)s::int8::oid
   AND a.attnum > 0
   AND NOT a.attisdropped;
