-- Databases that restores made and have not finished, by name or by mark.
-- Parameters: prefix (text, of their names), mark (text, how their comment starts), unmarked (int,
-- the connection limit of those that were killed before they got a comment). Any role. Any supported PostgreSQL.
SELECT d.datname                                         AS database,
       coalesce(shobj_description(d.oid, 'pg_database'), '') AS comment,
       d.datconnlimit = %(unmarked)s
           AND shobj_description(d.oid, 'pg_database') IS NULL AS unmarked
  FROM pg_database AS d
 WHERE starts_with(d.datname, %(prefix)s)
    OR starts_with(shobj_description(d.oid, 'pg_database'), %(mark)s)
 ORDER BY d.datname;
