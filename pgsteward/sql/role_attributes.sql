-- What kind of role we are.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT r.rolname::text                                               AS name,
       r.rolsuper                                                    AS is_superuser,
       r.rolcreatedb                                                 AS may_create_databases,
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE')       AS may_end_sessions,
       pg_has_role(current_user, d.datdba, 'USAGE')                  AS is_database_owner,
       pg_get_userbyid(d.datdba)::text                               AS database_owner
  FROM pg_roles AS r, pg_database AS d
 WHERE r.rolname = current_user
   AND d.datname = current_database();
