-- What the planner knows about the columns of indexes, in their order: the ground of an estimate.
-- A column without statistics has NULLs; an expression's are kept under the index itself.
-- Parameters: oids (int8[]) of the indexes; names (name[]) of them and their tables, without which pg_stats
-- asks for the rights on every column of the database.
-- Statistics are shown for columns that our role may SELECT. PostgreSQL 15+.
  WITH wanted AS MATERIALIZED (
       SELECT a.attrelid                                                    AS oid,
              a.attnum                                                      AS position,
              a.attlen                                                      AS length,
              a.attalign                                                    AS alignment,
              CASE WHEN k.attnum = 0 THEN n.nspname ELSE tn.nspname END     AS schemaname,
              CASE WHEN k.attnum = 0 THEN c.relname ELSE t.relname END      AS tablename,
              CASE WHEN k.attnum = 0 THEN a.attname ELSE ta.attname END     AS attname,
              i.indnkeyatts                                                 AS keys,
              has_table_privilege(t.oid, 'SELECT')
                AND NOT row_security_active(t.oid)                          AS may_read
         FROM pg_index AS i
              JOIN pg_attribute AS a ON a.attrelid = i.indexrelid
              CROSS JOIN LATERAL (SELECT i.indkey[a.attnum - 1] AS attnum) AS k
              JOIN pg_class AS c ON c.oid = i.indexrelid
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
              JOIN pg_class AS t ON t.oid = i.indrelid
              JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
              LEFT JOIN pg_attribute AS ta ON ta.attrelid = i.indrelid AND ta.attnum = k.attnum
        WHERE i.indexrelid = ANY (%(oids)s::int8[]::oid[])
       )
SELECT w.oid::int8                                                          AS oid,
       bool_and(w.may_read)                                                 AS may_read,
       min(w.keys)                                                          AS keys,
       array_agg(w.length ORDER BY w.position)                              AS lengths,
       array_agg(w.alignment::text ORDER BY w.position)                     AS alignments,
       array_agg(s.avg_width ORDER BY w.position)                           AS widths,
       array_agg(s.null_frac::float8 ORDER BY w.position)                   AS null_shares,
       array_agg(s.n_distinct::float8 ORDER BY w.position)                  AS distinct_counts
  FROM wanted AS w
       LEFT JOIN pg_stats AS s
              ON s.schemaname = w.schemaname
             AND s.tablename = w.tablename
             AND s.attname = w.attname
             AND s.tablename = ANY (%(names)s::name[])
             AND NOT s.inherited
 GROUP BY w.oid;
