-- Databases that restores have put aside, by the beginning of their comment.
-- Parameters: mark (text). Any role. Any supported PostgreSQL.
-- The comment comes as bytes: it has the encoding of whichever database it was given in.
SELECT d.datname                                            AS name,
       d.oid                                                AS oid,
       textsend(shobj_description(d.oid, 'pg_database'))    AS comment,
       pg_has_role(d.datdba, 'USAGE')                       AS may_own,
       (SELECT count(*)
          FROM pg_stat_activity AS a
         WHERE a.datid = d.oid
           AND a.backend_type = 'client backend')           AS sessions
  FROM pg_database AS d
 WHERE starts_with(shobj_description(d.oid, 'pg_database'), %(mark)s)
 ORDER BY d.datname;
