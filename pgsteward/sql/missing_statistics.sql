-- What the planner has no statistics of though its table has rows: columns (also of a parent's whole tree),
-- expressions of indexes, statistics objects. ALTER TABLE, CREATE INDEX and CREATE STATISTICS leave it so.
-- Only what our role could see if it was there: pg_stats hides the rest.
-- Parameters: none.
-- Needs SELECT on the tables. PostgreSQL 15+.
  WITH tables AS (
       SELECT c.oid,
              n.nspname,
              c.relname,
              c.relkind = 'p'                       AS inherited
         FROM pg_class AS c
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'm')
          AND c.relpersistence <> 't'
          AND c.reltuples > 0
          AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
          AND NOT (c.relrowsecurity AND row_security_active(c.oid))
       ),
       known AS MATERIALIZED (
       SELECT s.schemaname,
              s.tablename,
              s.attname,
              s.inherited
         FROM pg_stats AS s
       ),
       wanted AS (
       SELECT t.oid,
              t.nspname,
              t.relname,
              a.attname,
              t.inherited,
              'column ' || quote_ident(a.attname)   AS what
         FROM tables AS t
              JOIN pg_attribute AS a
                ON a.attrelid = t.oid
               AND a.attnum > 0
               AND NOT a.attisdropped
               AND a.attgenerated <> 'v'
               AND coalesce(a.attstattarget, -1) <> 0
        WHERE has_column_privilege(t.oid, a.attnum, 'SELECT')
        UNION ALL
       SELECT t.oid,
              t.nspname,
              x.relname,
              a.attname,
              false,
              'expression of index ' || quote_ident(x.relname)
         FROM tables AS t
              JOIN pg_index AS i ON i.indrelid = t.oid AND i.indisvalid AND i.indexprs IS NOT NULL
              JOIN pg_class AS x ON x.oid = i.indexrelid AND x.relkind = 'i'
              JOIN pg_attribute AS a
                ON a.attrelid = x.oid
               AND i.indkey[a.attnum - 1] = 0
               AND coalesce(a.attstattarget, -1) <> 0
        WHERE has_column_privilege(x.oid, a.attnum, 'SELECT')
       )
SELECT w.oid::int8                                  AS oid,
       w.what
  FROM wanted AS w
       LEFT JOIN known AS k
              ON k.schemaname = w.nspname
             AND k.tablename = w.relname
             AND k.attname = w.attname
             AND k.inherited = w.inherited
 WHERE k.attname IS NULL
 UNION
SELECT t.oid::int8,
       'statistics object ' || quote_ident(e.stxname)
  FROM tables AS t
       JOIN pg_statistic_ext AS e ON e.stxrelid = t.oid AND coalesce(e.stxstattarget, -1) <> 0
       JOIN pg_namespace AS n ON n.oid = e.stxnamespace
       LEFT JOIN pg_stats_ext AS k
              ON k.statistics_schemaname = n.nspname
             AND k.statistics_name = e.stxname
             AND k.inherited = t.inherited
 WHERE pg_has_role(current_user, e.stxowner, 'USAGE')
   AND k.statistics_name IS NULL
 ORDER BY 1, 2;
