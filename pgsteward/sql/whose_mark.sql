-- Which database of which cluster this is: what the mark of unfinished work names.
-- No parameters. pg_control_system() may be called by everybody unless that was revoked. Any supported PostgreSQL.
SELECT (SELECT c.system_identifier::text FROM pg_control_system() AS c) AS system_identifier,
       d.oid::int8                                                    AS database_oid,
       d.datname                                                      AS database
  FROM pg_database AS d
 WHERE d.datname = current_database();
