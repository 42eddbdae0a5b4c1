-- What belongs to a database's OID and is in none of its tables: to be copied before it is replaced.
-- Parameters: database (text). Any role. Any supported PostgreSQL.
-- Comment and settings come as bytes: they have the encoding of whichever database they were given in.
SELECT pg_get_userbyid(d.datdba)::text                            AS owner,
       pg_has_role(d.datdba, 'USAGE')
       AND CASE WHEN current_setting('server_version_num')::int >= 160000
                THEN pg_has_role(d.datdba, 'SET')
                ELSE true
           END                                                    AS may_own,
       (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) AS is_superuser,
       d.datconnlimit                                             AS connection_limit,
       d.datistemplate                                            AS is_template,
       t.spcname::text                                            AS tablespace,
       textsend(shobj_description(d.oid, 'pg_database'))          AS comment,
       has_database_privilege('public', d.oid, 'CONNECT')         AS open_to_public,
       (SELECT coalesce(json_agg(json_build_object(
                   'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                   'privilege', a.privilege_type,
                   'grantable', a.is_grantable)), '[]'::json)
          FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a) AS acl,
       (SELECT coalesce(json_agg(json_build_object(
                   'role', CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END,
                   'setting', encode(textsend(c.setting), 'hex'))), '[]'::json)
          FROM pg_db_role_setting AS s
         CROSS JOIN unnest(s.setconfig) AS c (setting)
         WHERE s.setdatabase = d.oid)                             AS settings,
       (SELECT count(*)
          FROM pg_shseclabel AS l
         WHERE l.objoid = d.oid
           AND l.classoid = 'pg_database'::regclass)              AS security_labels
  FROM pg_database AS d
  JOIN pg_tablespace AS t ON t.oid = d.dattablespace
 WHERE d.datname = %(database)s;
