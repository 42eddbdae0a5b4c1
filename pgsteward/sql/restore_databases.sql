-- Databases that restores made and have not finished, by name or by mark.
-- Parameters: prefix (text, of their names), mark (text, how their comment starts). Any role. Any supported PostgreSQL.
SELECT d.datname                                         AS database,
       coalesce(shobj_description(d.oid, 'pg_database'), '') AS comment
  FROM pg_database AS d
 WHERE starts_with(d.datname, %(prefix)s)
    OR starts_with(shobj_description(d.oid, 'pg_database'), %(mark)s)
 ORDER BY d.datname;
