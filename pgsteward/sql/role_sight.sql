-- What this role is shown of others' sessions, and whether it may write.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT current_user::text                                            AS role_name,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')       AS sees_others,
       current_setting('transaction_read_only')::boolean             AS read_only;
