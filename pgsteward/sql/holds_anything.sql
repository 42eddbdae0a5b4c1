-- Whether a database holds any table, view, sequence or function that is not PostgreSQL's or an extension's own.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT EXISTS (SELECT
                 FROM pg_class AS c
                 JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname <> 'information_schema'
                  AND n.nspname !~ '^pg_'
                  AND NOT EXISTS (SELECT
                                    FROM pg_depend AS d
                                   WHERE d.classid = 'pg_class'::regclass
                                     AND d.objid = c.oid
                                     AND d.deptype = 'e'))
    OR EXISTS (SELECT
                 FROM pg_proc AS p
                 JOIN pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname <> 'information_schema'
                  AND n.nspname !~ '^pg_'
                  AND NOT EXISTS (SELECT
                                    FROM pg_depend AS d
                                   WHERE d.classid = 'pg_proc'::regclass
                                     AND d.objid = p.oid
                                     AND d.deptype = 'e'))
    OR EXISTS (SELECT
                 FROM pg_largeobject_metadata) AS holds_anything;
