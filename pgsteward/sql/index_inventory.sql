-- Every index of the application's schemas: is it valid, and is somebody building it at this moment?
-- A concurrent build holds ShareUpdateExclusiveLock on the table, as VACUUM and ANALYZE do, which are told
-- apart by their own progress views.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       c.relkind::text                                                      AS kind,
       i.indisvalid                                                         AS is_valid,
       CASE WHEN NOT i.indisvalid THEN
            (SELECT min(l.pid)
               FROM pg_locks AS l
              WHERE l.locktype = 'relation'
                AND l.relation = i.indrelid
                AND l.database = d.oid
                AND l.mode = 'ShareUpdateExclusiveLock'
                AND l.granted
                AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = l.pid)
                AND NOT EXISTS (SELECT FROM pg_stat_progress_analyze AS a WHERE a.pid = l.pid))
        END                                                                 AS builder_pid
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_database AS d ON d.datname = current_database()
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname, c.relname;
