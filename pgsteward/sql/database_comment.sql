-- OID and comment of a database; the comment as bytes, in the encoding of whichever database it was given in.
-- Parameters: database (text). Any role. Any supported PostgreSQL.
SELECT d.oid                                             AS oid,
       textsend(shobj_description(d.oid, 'pg_database')) AS comment
  FROM pg_database AS d
 WHERE d.datname = %(database)s;
