-- What pg_dump leaves out without a word: whatever users put into PostgreSQL's own schemas, and invalid indexes.
-- Parameters: none. Any role may run it. What initdb makes has an oid below 16384.
WITH found AS (
       SELECT 'pg_proc'::regclass AS class, p.oid, p.pronamespace AS namespace, 'function' AS kind,
              p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name
         FROM pg_proc AS p
        UNION ALL
       SELECT 'pg_class'::regclass, c.oid, c.relnamespace, 'relation', c.relname::text
         FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL
       SELECT 'pg_type'::regclass, t.oid, t.typnamespace, 'type', t.typname::text
         FROM pg_type AS t
        WHERE t.typtype IN ('b', 'd', 'e', 'r')
          AND t.typelem = 0
        UNION ALL
       SELECT 'pg_operator'::regclass, o.oid, o.oprnamespace, 'operator', o.oprname::text
         FROM pg_operator AS o
       )
SELECT f.kind,
       n.nspname::text AS schema_name,
       f.name,
       'it lies in a schema of PostgreSQL''s own' AS reason
  FROM found AS f
  JOIN pg_namespace AS n ON n.oid = f.namespace
 WHERE f.oid >= 16384
   AND (n.nspname = 'information_schema' OR n.nspname ~ '^pg_')
   AND n.nspname !~ '^pg_(toast|temp)'
   AND NOT EXISTS (SELECT
                     FROM pg_depend AS d
                    WHERE d.classid = f.class
                      AND d.objid = f.oid
                      AND d.deptype = 'e')
 UNION ALL
SELECT 'index',
       n.nspname::text,
       c.relname::text,
       'it is invalid: a CREATE or REINDEX CONCURRENTLY failed, or is at work'
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_class AS t ON t.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE NOT i.indisvalid
   AND t.relkind <> 'p'
   AND n.nspname !~ '^pg_'
 ORDER BY 1, 2, 3;
