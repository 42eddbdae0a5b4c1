-- What a restore asks the server before it starts.
-- Parameters: none. Any role; the data folder is NULL without the right to read it. Any supported PostgreSQL.
-- Of roles: true where ours may give them what it makes, null where it would have no rights on that then.
SELECT current_setting('server_version_num')::int                        AS version_num,
       current_setting('server_version')                                 AS version,
       r.rolname::text                                                   AS role_name,
       r.rolsuper                                                        AS is_superuser,
       current_setting('transaction_read_only')::boolean                 AS read_only,
       r.rolsuper OR r.rolcreatedb                                       AS may_create,
       r.rolsuper OR r.rolcreaterole                                     AS may_create_roles,
       CASE WHEN pg_has_role(r.oid, 'pg_read_all_settings', 'USAGE')
            THEN current_setting('data_directory') END                   AS data_directory,
       coalesce(inet_server_addr() = inet_client_addr(), true)           AS same_machine,
       getdatabaseencoding()::text                                       AS encoding,
       (SELECT coalesce(json_object_agg(e.name, e.default_version), '{}'::json)
          FROM pg_available_extensions AS e)                             AS extensions,
       (SELECT coalesce(json_agg(v.name), '[]'::json)
          FROM pg_available_extension_versions AS v
               JOIN pg_available_extensions AS e
                 ON e.name = v.name
                AND e.default_version = v.version
         WHERE v.superuser
           AND NOT v.trusted)                                            AS superuser_extensions,
       (SELECT coalesce(json_object_agg(encode(textsend(o.rolname::text), 'hex'),
                                        CASE WHEN NOT CASE
                                                  WHEN current_setting('server_version_num')::int >= 160000
                                                  THEN pg_has_role(o.oid, 'SET')
                                                  ELSE pg_has_role(o.oid, 'MEMBER')
                                                  END THEN false
                                             WHEN pg_has_role(o.oid, 'USAGE') THEN true
                                        END), '{}'::json)
          FROM pg_roles AS o)                                            AS role_bytes,
       (SELECT coalesce(json_agg(d.datname), '[]'::json)
          FROM pg_database AS d)                                         AS databases,
       (SELECT coalesce(json_object_agg(t.spcname, has_tablespace_privilege(t.oid, 'CREATE')), '{}'::json)
          FROM pg_tablespace AS t)                                       AS tablespaces,
       (SELECT coalesce(json_object_agg(t.spcname, pg_tablespace_location(t.oid)), '{}'::json)
          FROM pg_tablespace AS t
         WHERE t.spcname <> 'pg_global')                                 AS tablespace_folders,
       (SELECT coalesce(json_agg(c.collname), '[]'::json)
          FROM pg_collation AS c
         WHERE c.collnamespace = 'pg_catalog'::regnamespace)             AS collations,
       (SELECT min(to_jsonb(d) ->> 'datcollversion')
          FROM pg_database AS d
         WHERE to_jsonb(d) ->> 'datlocprovider' = 'c')                   AS libc_version,
       (SELECT coalesce(json_object_agg(coalesce(to_jsonb(c) ->> 'colllocale',
                                                 to_jsonb(c) ->> 'colliculocale',
                                                 c.collcollate),
                                        c.collversion), '{}'::json)
          FROM pg_collation AS c
         WHERE c.collprovider = 'i'
           AND c.collnamespace = 'pg_catalog'::regnamespace)             AS icu_versions
  FROM pg_roles AS r
 WHERE r.rolname = current_user;
