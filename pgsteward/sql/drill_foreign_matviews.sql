-- Materialized views that read foreign tables, also through views and other materialized views.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
  WITH RECURSIVE reads AS (
       SELECT r.ev_class AS reader, d.refobjid AS read
         FROM pg_rewrite AS r
         JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        WHERE d.refclassid = 'pg_class'::regclass
          AND d.refobjid <> r.ev_class
       ),
       foreign_ones AS (
       SELECT c.oid
         FROM pg_class AS c
        WHERE c.relkind = 'f'
        UNION
       SELECT n.oid
         FROM foreign_ones AS f
         JOIN LATERAL (
              SELECT r.reader AS oid FROM reads AS r WHERE r.read = f.oid
               UNION ALL
              SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = f.oid) AS n ON true
       )
SELECT n.nspname::text AS schema_name,
       c.relname::text AS name
  FROM foreign_ones AS f
  JOIN pg_class AS c ON c.oid = f.oid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm'
 ORDER BY n.nspname, c.relname;
