-- What the lock table of this server holds, and what a dump with proof of this database will put into it.
-- Parameters: schemas (text[]), table_schemas and table_names (text[], in pairs): what a filtered dump is of, NULL
-- for all. Any role may run it.
-- The lock table is made for max_locks_per_transaction locks of each process that there may be; fast-path locks
-- are not in it, nor are the predicate locks of serializable transactions, which have a table of their own.
  WITH server AS (
       SELECT current_setting('max_locks_per_transaction')::int8   AS locks_per_process,
              current_setting('max_connections')::int8
            + current_setting('max_prepared_transactions')::int8
            + current_setting('max_worker_processes')::int8
            + current_setting('max_wal_senders')::int8
            + coalesce(current_setting('autovacuum_worker_slots', true),
                       current_setting('autovacuum_max_workers'))::int8
            + 1                                                    AS processes
       ),
       held AS (
       SELECT DISTINCT l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid,
              l.transactionid::text, l.classid, l.objid, l.objsubid
         FROM pg_locks AS l
        WHERE NOT l.fastpath
          AND l.mode <> 'SIReadLock'
       ),
       tables AS (
       SELECT c.oid
         FROM pg_class AS c
         JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p')
          AND c.relpersistence <> 't'
          AND n.nspname <> 'information_schema'
          AND n.nspname !~ '^pg_'
          AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s))
          AND (%(table_names)s::text[] IS NULL
            OR EXISTS (SELECT
                         FROM unnest(%(table_schemas)s::text[], %(table_names)s) AS t (schema_name, name)
                        WHERE t.schema_name = n.nspname
                          AND t.name = c.relname))
       )
SELECT s.locks_per_process,
       s.processes,
       (SELECT count(*) FROM held)                                  AS held,
       (SELECT count(*) FROM tables)                                AS tables,
       (SELECT count(*)
          FROM pg_index AS i
          JOIN tables AS t ON t.oid = i.indrelid)                   AS indexes
  FROM server AS s;
