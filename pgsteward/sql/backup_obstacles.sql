-- Tables and sequences that this role can't dump completely: no right to read, or rows hidden by policies.
-- Parameters: none. Any role may run it. Of extensions, those count whose rows or position are dumped.
SELECT n.nspname::text   AS schema_name,
       c.relname::text   AS name,
       k.extname::text   AS extension_name,
       CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'no USAGE on its schema'
            WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'no SELECT'
            ELSE 'row-level security hides rows from this role'
       END               AS reason
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_extension AS k ON c.oid = ANY (k.extconfig)
 WHERE c.relkind IN ('r', 'p', 'S')
   AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
   AND (k.oid IS NOT NULL
     OR NOT EXISTS (SELECT
                      FROM pg_depend AS d
                     WHERE d.classid = 'pg_class'::regclass
                       AND d.objid = c.oid
                       AND d.deptype = 'e'))
   AND (NOT has_schema_privilege(n.oid, 'USAGE')
     OR NOT (c.relkind <> 'S' AND has_table_privilege(c.oid, 'SELECT')
          OR c.relkind = 'S' AND has_sequence_privilege(c.oid, 'SELECT'))
     OR c.relkind <> 'S' AND row_security_active(c.oid))
 ORDER BY n.nspname, c.relname;
