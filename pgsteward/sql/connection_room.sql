-- How many more sessions this role can open, in this database or in others.
-- Parameters: here (bool): in this database, whose own limit counts then. Any role.
-- numbackends also counts workers of the server itself, so the answer is rather too small.
-- Any supported PostgreSQL (reserved_connections is 16+).
SELECT greatest(0, least(
         current_setting('max_connections')::int
           - CASE WHEN r.rolsuper THEN 0
                  ELSE current_setting('superuser_reserved_connections')::int
             END
           - CASE WHEN r.rolsuper
                    OR EXISTS (SELECT
                                 FROM pg_roles AS p
                                WHERE p.rolname = 'pg_use_reserved_connections'
                                  AND pg_has_role(r.oid, p.oid, 'USAGE'))
                  THEN 0
                  ELSE coalesce(current_setting('reserved_connections', true)::int, 0)
             END
           - (SELECT sum(s.numbackends) FROM pg_stat_database AS s),
         CASE WHEN r.rolconnlimit >= 0 AND NOT r.rolsuper
              THEN r.rolconnlimit - (SELECT count(*) FROM pg_stat_activity AS a WHERE a.usesysid = r.oid)
         END,
         CASE WHEN %(here)s AND d.datconnlimit >= 0 AND NOT r.rolsuper
              THEN d.datconnlimit - (SELECT count(*) FROM pg_stat_activity AS a WHERE a.datid = d.oid)
         END))::int AS free
  FROM pg_roles AS r, pg_database AS d
 WHERE r.rolname = session_user
   AND d.datname = current_database();
