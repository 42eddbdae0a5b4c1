-- A table and its partitions, any level down, parents before their parts. Foreign tables can't have indexes.
-- A partition that is being detached is no longer one of them.
-- Parameters: oid (int8).
-- Needs no privilege. PostgreSQL 15+.
  WITH RECURSIVE tree AS (
       SELECT %(oid)s::int8::oid                         AS oid,
              NULL::oid                                  AS parent_oid,
              0                                          AS level
        UNION ALL
       SELECT h.inhrelid,
              h.inhparent,
              t.level + 1
         FROM tree AS t
              JOIN pg_inherits AS h ON h.inhparent = t.oid
              JOIN pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
        WHERE NOT h.inhdetachpending
       )
SELECT c.oid::int8                                       AS oid,
       t.parent_oid::int8                                AS parent_oid,
       n.nspname                                         AS schema,
       c.relname                                         AS name,
       c.relkind::text                                   AS kind
  FROM tree AS t
       JOIN pg_class AS c ON c.oid = t.oid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind <> 'f'
 ORDER BY t.level, n.nspname, c.relname;
