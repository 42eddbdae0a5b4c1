-- Where pgstattuple is installed, and whether our role may call it.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT n.nspname                                                            AS schema,
       has_schema_privilege(n.oid, 'USAGE')                                 AS may_use_schema,
       has_function_privilege(p.oid, 'EXECUTE')                             AS may_execute,
       EXISTS (SELECT FROM pg_available_extensions AS a WHERE a.name = 'pgstattuple') AS is_available
  FROM pg_database AS d
       LEFT JOIN pg_extension AS e ON e.extname = 'pgstattuple'
       LEFT JOIN pg_namespace AS n ON n.oid = e.extnamespace
       LEFT JOIN pg_proc AS p
              ON p.pronamespace = n.oid
             AND p.proname = 'pgstatindex'
             AND p.proargtypes[0] = 'regclass'::regtype
 WHERE d.datname = current_database();
