-- The queries of all materialized views, and of the plain views below them, as PostgreSQL keeps them, and the
-- relations that it has recorded of each; those it is born with are not among them.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
  WITH RECURSIVE reads AS (
       SELECT DISTINCT r.ev_class AS reader,
              d.refobjid          AS source
         FROM pg_rewrite AS r
              JOIN pg_depend AS d
                ON d.classid = 'pg_rewrite'::regclass
               AND d.objid = r.oid
               AND d.refclassid = 'pg_class'::regclass
               AND d.refobjid <> r.ev_class
              JOIN pg_class AS v ON v.oid = d.refobjid AND v.relkind = 'v'
       ),
       needed AS (
       SELECT c.oid
         FROM pg_class AS c
        WHERE c.relkind = 'm'
        UNION
       SELECT e.source
         FROM needed AS n
              JOIN reads AS e ON e.reader = n.oid
       )
SELECT n.oid::int8                                      AS oid,
       r.ev_action::text                                AS action,
       ARRAY(SELECT DISTINCT d.refobjid::int8
               FROM pg_depend AS d
              WHERE d.classid = 'pg_rewrite'::regclass
                AND d.objid = r.oid
                AND d.refclassid = 'pg_class'::regclass
                AND d.refobjid <> r.ev_class)           AS depends_on
  FROM needed AS n
       JOIN pg_rewrite AS r ON r.ev_class = n.oid AND r.rulename = '_RETURN';
