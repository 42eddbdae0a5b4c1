-- Materialized views that read foreign tables, or call functions of dblink or of an extension with a foreign-data
-- wrapper, also through views and other materialized views. What a function does inside is not seen.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
  WITH RECURSIVE reads AS (
       SELECT r.ev_class AS reader, d.refobjid AS read
         FROM pg_rewrite AS r
         JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        WHERE d.refclassid = 'pg_class'::regclass
          AND d.refobjid <> r.ev_class
       ),
       far_functions AS (
       SELECT p.objid AS oid
         FROM pg_depend AS p
         JOIN pg_extension AS e ON e.oid = p.refobjid
        WHERE p.classid = 'pg_proc'::regclass
          AND p.refclassid = 'pg_extension'::regclass
          AND p.deptype = 'e'
          AND (e.extname = 'dblink'
               OR EXISTS (SELECT
                            FROM pg_depend AS w
                           WHERE w.classid = 'pg_foreign_data_wrapper'::regclass
                             AND w.refclassid = 'pg_extension'::regclass
                             AND w.refobjid = e.oid
                             AND w.deptype = 'e'))
       ),
       foreign_ones AS (
       SELECT c.oid
         FROM pg_class AS c
        WHERE c.relkind = 'f'
        UNION
       SELECT r.ev_class
         FROM pg_rewrite AS r
         JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
         JOIN far_functions AS p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
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
