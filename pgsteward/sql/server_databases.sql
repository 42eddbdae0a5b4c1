-- Every database of the server, and why one can't or shall not be looked after.
-- Parameters: mark (text, how the comment of a restore's unfinished database starts); with_sizes (bool): without
-- them no files are looked at, of which 20,000 tables have 100,000.
-- Any role; bytes is NULL without CONNECT and pg_read_all_stats. Any supported PostgreSQL.
SELECT d.datname::text                                                    AS name,
       d.datistemplate                                                    AS is_template,
       d.datallowconn AND d.datconnlimit <> -2                            AS allows_connections,
       d.datconnlimit = -2                                                AS is_invalid,
       has_database_privilege(d.oid, 'CONNECT')                           AS may_connect,
       coalesce(starts_with(shobj_description(d.oid, 'pg_database'), %(mark)s), false)
                                                                          AS is_scratch,
       current_user::text                                                 AS role_name,
       CASE WHEN %(with_sizes)s
             AND (has_database_privilege(d.oid, 'CONNECT')
                 OR pg_has_role('pg_read_all_stats', 'USAGE'))
            THEN pg_database_size(d.oid)
       END                                                                AS bytes
  FROM pg_database AS d
 ORDER BY d.datname;
