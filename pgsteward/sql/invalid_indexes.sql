-- Invalid indexes, and whether somebody is building them at this moment.
-- An invalid partitioned index is normal until all its partitions are attached; kind tells them apart.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+.
SELECT i.indexrelid::int8                                                   AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       c.relkind::text                                                      AS kind,
       i.indrelid::int8                                                     AS table_oid,
       tn.nspname                                                           AS table_schema,
       t.relname                                                            AS table_name,
       (SELECT min(l.pid)
          FROM pg_locks AS l
               JOIN pg_stat_activity AS a ON a.pid = l.pid AND a.usesysid IS NOT NULL -- autovacuum has no role
         WHERE l.locktype = 'relation'
           AND l.relation = i.indrelid
           AND l.database = d.oid
           AND l.mode = 'ShareUpdateExclusiveLock'
           AND l.granted
           AND l.pid <> pg_backend_pid())                                   AS busy_pid,
       (SELECT min(p.pid)
          FROM pg_stat_progress_create_index AS p
         WHERE p.relid = i.indrelid
           AND p.datid = d.oid)                                             AS builder_pid
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_class AS t ON t.oid = i.indrelid
       JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
       JOIN pg_database AS d ON d.datname = current_database()
 WHERE NOT i.indisvalid
 ORDER BY n.nspname, c.relname;
