-- Extensions of this database that only a superuser can create, and so only a superuser can restore.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT e.extname::text AS name
  FROM pg_extension AS e
       LEFT JOIN pg_available_extension_versions AS v
              ON v.name = e.extname
             AND v.version = e.extversion
 WHERE e.extname <> 'plpgsql'
   AND (v.superuser IS NULL OR v.superuser AND NOT v.trusted)
 ORDER BY e.extname;
