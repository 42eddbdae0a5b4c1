-- Every index of the application's schemas, with all that decides what it is good for.
-- A concurrent build holds ShareUpdateExclusiveLock on the table, as VACUUM and ANALYZE do, which are told
-- apart by their own progress views. Nothing here waits for a lock: expressions, predicates and sizes are
-- asked for afterwards.
-- Parameters: only (int8): this one, wherever it is; NULL for all.
-- Needs no privilege. PostgreSQL 15+.
  WITH builders AS MATERIALIZED (
       SELECT l.relation,
              min(l.pid)                                                    AS pid
         FROM pg_locks AS l
        WHERE l.locktype = 'relation'
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          AND l.mode = 'ShareUpdateExclusiveLock'
          AND l.granted
          AND l.pid <> pg_backend_pid()
          AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = l.pid)
          AND NOT EXISTS (SELECT FROM pg_stat_progress_analyze AS a WHERE a.pid = l.pid)
        GROUP BY l.relation
       ),
       referenced AS MATERIALIZED (
       SELECT DISTINCT f.conindid
         FROM pg_constraint AS f
        WHERE f.contype = 'f'
       ),
       owned AS MATERIALIZED (
       SELECT d.objid
         FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass
          AND d.deptype = 'e'
       )
SELECT i.indexrelid::int8                                                   AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       c.relkind::text                                                      AS kind,
       h.inhparent::int8                                                    AS parent_oid,
       t.oid::int8                                                          AS table_oid,
       t.relname                                                            AS table_name,
       t.relkind::text                                                      AS table_kind,
       am.amname                                                            AS method,
       s.spcname                                                            AS tablespace,
       i.indisunique                                                        AS is_unique,
       i.indnullsnotdistinct                                                AS nulls_not_distinct,
       i.indimmediate                                                       AS is_immediate,
       i.indisexclusion                                                     AS is_exclusion,
       i.indisvalid                                                         AS is_valid,
       i.indisreplident                                                     AS is_replica_identity,
       i.indisclustered                                                     AS is_clustered,
       i.indnkeyatts::int4                                                  AS key_count,
       i.indexprs IS NOT NULL                                               AS has_expressions,
       i.indpred IS NOT NULL                                                AS is_partial,
       ARRAY(SELECT a.attname
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (num, place)
                    LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.num
              ORDER BY k.place)                                             AS columns,
       i.indclass::oid[]::int8[]                                            AS operator_classes,
       i.indcollation::oid[]::int8[]                                        AS collations,
       i.indoption::int2[]::int4[]                                          AS options,
       ARRAY(SELECT coalesce(o.opcdefault
                             AND k.coll = a.attcollation
                             AND (o.opcintype = a.atttypid
                                  OR NOT EXISTS (SELECT FROM pg_opclass AS d
                                                  WHERE d.opcmethod = o.opcmethod
                                                    AND d.opcdefault
                                                    AND d.opcintype = a.atttypid)),
                             false)
               FROM unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[])
                      WITH ORDINALITY AS k (num, opclass, coll, place)
                    JOIN pg_opclass AS o ON o.oid = k.opclass
                    LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.num
              ORDER BY k.place)                                             AS plain,
       (SELECT string_agg(a.attnum || a.attoptions::text, ' ' ORDER BY a.attnum)
          FROM pg_attribute AS a
         WHERE a.attrelid = i.indexrelid
           AND a.attoptions IS NOT NULL)                                    AS class_options,
       CASE WHEN am.amname NOT IN ('btree', 'hash', 'gist', 'gin', 'spgist')
            THEN c.reloptions::text END                                     AS method_options,
       k.conname                                                            AS constraint_name,
       k.contype::text                                                      AS constraint_type,
       i.indexrelid IN (SELECT f.conindid FROM referenced AS f)             AS is_referenced,
       i.indrelid IN (SELECT o.objid FROM owned AS o)                       AS is_of_extension,
       b.pid                                                                AS builder_pid
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_class AS t ON t.oid = i.indrelid
       JOIN pg_am AS am ON am.oid = c.relam
       LEFT JOIN pg_tablespace AS s ON s.oid = c.reltablespace
       LEFT JOIN pg_inherits AS h ON h.inhrelid = i.indexrelid
       LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
       LEFT JOIN builders AS b ON b.relation = i.indrelid AND NOT i.indisvalid
 WHERE CASE WHEN %(only)s::int8 IS NULL
            THEN n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
                 AND n.nspname !~ '^pg_(toast_)?temp_'
            ELSE i.indexrelid = %(only)s::int8::oid
        END
 ORDER BY n.nspname, c.relname;
