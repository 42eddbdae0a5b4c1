-- What a server's own settings say of its size, for the sessions that load a restore.
-- Parameters: none. Any role. Any supported PostgreSQL.
SELECT pg_size_bytes(current_setting('shared_buffers'))               AS shared_buffers_bytes,
       pg_size_bytes(current_setting('maintenance_work_mem'))         AS sort_bytes,
       current_setting('max_parallel_maintenance_workers')::int       AS parallel_workers,
       coalesce(inet_server_addr() = inet_client_addr(), true)        AS same_machine;
