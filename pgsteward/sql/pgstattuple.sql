-- Where pgstattuple is installed, and what of it our role may call.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT n.nspname                                                            AS schema,
       e.extversion                                                         AS version,
       has_schema_privilege(n.oid, 'USAGE')                                 AS may_use_schema,
       has_function_privilege(p.oid, 'EXECUTE')                             AS may_execute,
       has_function_privilege(a.oid, 'EXECUTE')                             AS may_measure_tables,
       e.oid IS NOT NULL
         OR EXISTS (SELECT FROM pg_available_extensions AS v
                     WHERE v.name = 'pgstattuple')                          AS is_available
  FROM pg_database AS d
       LEFT JOIN pg_extension AS e ON e.extname = 'pgstattuple'
       LEFT JOIN pg_namespace AS n ON n.oid = e.extnamespace
       LEFT JOIN pg_proc AS p
              ON p.pronamespace = n.oid
             AND p.proname = 'pgstatindex'
             AND p.proargtypes[0] = 'regclass'::regtype
       LEFT JOIN pg_proc AS a
              ON a.pronamespace = n.oid
             AND a.proname = 'pgstattuple_approx'
             AND a.proargtypes[0] = 'regclass'::regtype
 WHERE d.datname = current_database();
