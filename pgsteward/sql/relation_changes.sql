-- What tells whether relations have changed: file node and counters of everything that holds their rows,
-- partitions and children included.
-- Parameters: oids (int8[]).
-- Needs no privilege. Any supported PostgreSQL.
  WITH RECURSIVE tree AS (
       SELECT c.oid AS root,
              c.oid
         FROM pg_class AS c
        WHERE c.oid = ANY (%(oids)s::int8[]::oid[])
        UNION
       SELECT t.root,
              i.inhrelid
         FROM tree AS t
              JOIN pg_inherits AS i ON i.inhparent = t.oid
       )
SELECT t.root::int8                                     AS root,
       c.oid::int8                                      AS oid,
       c.relkind::text                                  AS kind,
       c.oid::regclass::text                            AS name,
       c.relrowsecurity                                 AS has_row_security,
       coalesce(pg_relation_filenode(c.oid), 0)::int8   AS file_node,
       coalesce(pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
                + pg_stat_get_tuples_deleted(c.oid), 0) AS changes
  FROM tree AS t
       JOIN pg_class AS c ON c.oid = t.oid
 ORDER BY t.root, c.oid;
