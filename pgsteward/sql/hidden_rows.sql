-- Tables whose rows row-level security hides from us though we own them: it is forced.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS name
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relforcerowsecurity
   AND row_security_active(c.oid)
 ORDER BY n.nspname, c.relname;
