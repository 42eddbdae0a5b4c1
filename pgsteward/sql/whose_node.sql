-- Which server of its cluster answers: a primary and its standbys have one system identifier, but locks of their own.
-- No parameters, no rights. Any supported PostgreSQL.
SELECT pg_is_in_recovery()                                       AS in_recovery,
       current_setting('port')                                   AS port,
       current_setting('cluster_name')                           AS cluster_name,
       extract(epoch FROM pg_postmaster_start_time())::float8    AS started_s,
       extract(epoch FROM clock_timestamp())::float8             AS asked_s;
