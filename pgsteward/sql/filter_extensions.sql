-- The extensions that chosen tables, or all that is in chosen schemas, can't be made without; and those whose
-- configuration is among them. Those that come with every database are left out.
-- Parameters: table_schemas and table_names (text[], side by side), schemas (text[]).
-- Any role may run it. Any supported PostgreSQL.
-- What is chosen consists of what depends on it alone (columns' defaults, indexes, constraints, triggers, rules). An
-- array's type depends on its element's, a multirange's on its range's, a row's on its table. Extensions need others.
  WITH RECURSIVE members AS (
       SELECT d.classid, d.objid, d.refobjid AS extension
         FROM pg_depend AS d
        WHERE d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e'
       ),
       chosen AS (
       SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid
         FROM pg_class AS c
         JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%(table_schemas)s::text[], %(table_names)s::text[]))
        UNION
       SELECT d.classid, d.objid
         FROM pg_depend AS d
         JOIN pg_namespace AS n ON n.oid = d.refobjid
        WHERE d.refclassid = 'pg_namespace'::regclass
          AND n.nspname = ANY (%(schemas)s::text[])
       ),
       own AS (
       SELECT c.classid, c.objid
         FROM chosen AS c
        WHERE NOT EXISTS (SELECT FROM members AS m WHERE (m.classid, m.objid) = (c.classid, c.objid))
        UNION
       SELECT d.classid, d.objid
         FROM own AS o
         JOIN pg_depend AS d ON (d.refclassid, d.refobjid) = (o.classid, o.objid)
        WHERE d.deptype IN ('a', 'i', 'I', 'P', 'S')
       ),
       needed AS (
       SELECT d.refclassid AS classid, d.refobjid AS objid
         FROM own AS o
         JOIN pg_depend AS d ON (d.classid, d.objid) = (o.classid, o.objid)
        UNION
       SELECT d.refclassid, d.refobjid
         FROM needed AS n
         JOIN pg_depend AS d ON (d.classid, d.objid) = (n.classid, n.objid)
        WHERE n.classid = 'pg_type'::regclass
          AND d.refclassid IN ('pg_type'::regclass, 'pg_class'::regclass)
       ),
       extensions AS (
       SELECT e.oid
         FROM pg_extension AS e
        WHERE EXISTS (SELECT
                        FROM needed AS n
                        LEFT JOIN members AS m ON (m.classid, m.objid) = (n.classid, n.objid)
                       WHERE m.extension = e.oid
                          OR (n.classid = 'pg_extension'::regclass AND n.objid = e.oid))
           OR EXISTS (SELECT
                        FROM chosen AS c
                       WHERE c.classid = 'pg_class'::regclass
                         AND c.objid = ANY (e.extconfig))
        UNION
       SELECT d.refobjid
         FROM extensions AS x
         JOIN pg_depend AS d ON d.classid = 'pg_extension'::regclass
                            AND d.objid = x.oid
                            AND d.refclassid = 'pg_extension'::regclass
       )
SELECT e.extname::text      AS name,
       n.nspname::text      AS schema_name
  FROM extensions AS x
  JOIN pg_extension AS e ON e.oid = x.oid
  JOIN pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.oid >= 16384
 ORDER BY e.extname;
