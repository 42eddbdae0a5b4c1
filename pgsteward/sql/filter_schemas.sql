-- The schemas that one of pg_dump's schema patterns chooses.
-- Parameters: name (regular expression). Any role may run it. Any supported PostgreSQL.
SELECT n.nspname::text AS schema_name
  FROM pg_namespace AS n
 WHERE n.nspname ~ %(name)s;
