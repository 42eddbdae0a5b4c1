-- The system identifier of the server's cluster.
-- Parameters: none. Any role; NULL without the right to read it. Any supported PostgreSQL.
SELECT CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
            THEN (SELECT s.system_identifier::text FROM pg_control_system() AS s)
       END AS system_identifier;
