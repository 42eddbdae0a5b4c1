-- How many more sessions the server has room for, those that are reserved not counted.
-- Parameters: none. Any role: numbackends is shown to everybody. Any supported PostgreSQL (reserved_connections is 16+).
SELECT greatest(0, current_setting('max_connections')::int
                   - current_setting('superuser_reserved_connections')::int
                   - coalesce(current_setting('reserved_connections', true)::int, 0)
                   - (SELECT sum(s.numbackends) FROM pg_stat_database AS s))::int AS free;
