-- What a manifest says about the server and the database, read once before the dump.
-- Parameters: none. Any role; the system identifier is NULL without the right to read it.
SELECT current_setting('server_version')                            AS version,
       current_setting('server_version_num')::int                   AS version_num,
       CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
            THEN (SELECT s.system_identifier::text FROM pg_control_system() AS s)
       END                                                          AS system_identifier,
       pg_encoding_to_char(d.encoding)                              AS encoding,
       d.datcollate                                                 AS collate,
       d.datctype                                                   AS ctype,
       to_jsonb(d) ->> 'datcollversion'                             AS collation_version,
       d.oid::int8                                                  AS database_oid,
       d.datname::text                                              AS database_name,
       pg_database_size(d.oid)                                      AS database_bytes,
       pg_is_in_recovery()                                          AS in_recovery,
       (SELECT coalesce(json_object_agg(e.extname, e.extversion), '{}'::json)
          FROM pg_extension AS e)                                   AS extensions
  FROM pg_database AS d
 WHERE d.datname = current_database();
