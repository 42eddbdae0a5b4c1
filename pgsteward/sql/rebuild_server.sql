-- What a server says about itself before rebuilds start.
-- Parameters: none. Any role; the data folder is NULL without the right to read it. Any supported PostgreSQL.
SELECT current_setting('server_version_num')::int                           AS version_num,
       pg_is_in_recovery()                                                  AS is_standby,
       CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')
            THEN current_setting('data_directory') END                      AS data_folder,
       coalesce(inet_server_addr() = inet_client_addr(), true)              AS is_here,
       inet_server_addr() IS NULL                                           AS by_socket,
       (SELECT c.system_identifier FROM pg_control_system() AS c)           AS system_identifier;
