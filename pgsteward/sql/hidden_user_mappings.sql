-- User mappings whose options (a user, a password) this role may not read: pg_dump writes them without, and says nothing.
-- Parameters: none. Any role may run it; the conditions are those of the view pg_user_mappings.
SELECT s.srvname::text                       AS server_name,
       coalesce(r.rolname::text, 'public')   AS role_name
  FROM pg_user_mappings AS m
  JOIN pg_foreign_server AS s ON s.oid = m.srvid
  LEFT JOIN pg_roles AS r ON r.oid = m.umuser
 WHERE m.umoptions IS NULL
   AND NOT (SELECT o.rolsuper FROM pg_roles AS o WHERE o.rolname = current_user)
   AND NOT CASE WHEN m.umuser = 0 THEN pg_has_role(s.srvowner, 'USAGE')
                ELSE r.rolname = current_user
                     AND (pg_has_role(s.srvowner, 'USAGE') OR has_server_privilege(s.oid, 'USAGE'))
           END
 ORDER BY s.srvname, role_name;
