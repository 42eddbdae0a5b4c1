-- Which materialized view reads which other one, straight or through plain views, however many.
-- What a function reads in its body is not recorded by PostgreSQL and can't be seen here.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
  WITH RECURSIVE reads AS (
       SELECT DISTINCT r.ev_class AS reader,
              d.refobjid          AS source
         FROM pg_rewrite AS r
              JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
              JOIN pg_depend AS d
                ON d.classid = 'pg_rewrite'::regclass
               AND d.objid = r.oid
               AND d.refclassid = 'pg_class'::regclass
               AND d.refobjid <> r.ev_class
              JOIN pg_class AS s ON s.oid = d.refobjid AND s.relkind IN ('v', 'm')
       ),
       walk AS (
       SELECT e.reader AS matview,
              e.source
         FROM reads AS e
              JOIN pg_class AS m ON m.oid = e.reader AND m.relkind = 'm'
        UNION
       SELECT w.matview,
              e.source
         FROM walk AS w
              JOIN pg_class AS v ON v.oid = w.source AND v.relkind = 'v'
              JOIN reads AS e ON e.reader = w.source
       )
SELECT w.matview::int8                                                      AS matview,
       w.source::int8                                                       AS source
  FROM walk AS w
       JOIN pg_class AS s ON s.oid = w.source AND s.relkind = 'm'
 WHERE w.source <> w.matview;
