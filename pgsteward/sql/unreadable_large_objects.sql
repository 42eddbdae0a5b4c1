-- Large objects that this role can't read: pg_read_all_data does not cover them, and pg_dump fails on the first.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT m.oid::int8 AS oid
  FROM pg_largeobject_metadata AS m
 WHERE current_setting('lo_compat_privileges') = 'off'
   AND NOT pg_has_role(current_user, m.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT
                     FROM aclexplode(m.lomacl) AS a
                    WHERE a.privilege_type = 'SELECT'
                      AND (a.grantee = 0 OR pg_has_role(current_user, a.grantee, 'USAGE')))
 ORDER BY m.oid;
