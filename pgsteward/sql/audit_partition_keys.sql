-- What a table and its partitions, any level down, are partitioned by; NULL for an expression.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. PostgreSQL 15+.
  WITH RECURSIVE tree AS (
       SELECT %(oid)s::int8::oid                         AS oid
        UNION ALL
       SELECT h.inhrelid
         FROM tree AS t
              JOIN pg_inherits AS h ON h.inhparent = t.oid
              JOIN pg_class AS c ON c.oid = h.inhrelid AND c.relkind = 'p'
       )
SELECT DISTINCT a.attname                                AS name
  FROM tree AS t
       JOIN pg_partitioned_table AS p ON p.partrelid = t.oid
       CROSS JOIN LATERAL unnest(p.partattrs::int2[]) AS k (num)
       LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.num
 ORDER BY 1;
