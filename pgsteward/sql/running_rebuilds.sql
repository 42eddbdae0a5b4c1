-- Rebuilds of pgsteward that run in this database now.
-- Parameters: none.
-- Needs pg_read_all_stats where they are another role's: without it their state is hidden, and they are listed.
SELECT a.pid,
       a.usename::text                                                      AS role_name,
       a.application_name,
       a.query_start::text                                                  AS since
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.application_name = 'pgsteward reindex'
   AND a.state IS DISTINCT FROM 'idle'
 ORDER BY a.query_start;
