-- Every materialized view, with how it can be refreshed.
-- Parameters: none.
-- Needs no privilege. PostgreSQL 15+; MAINTAIN exists from 17 on.
SELECT c.oid::int8                                                          AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       c.relkind::text                                                      AS kind,
       o.rolname                                                            AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE')                       AS is_owner,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(c.oid, 'MAINTAIN')
            ELSE false
        END                                                                 AS has_maintain,
       pg_has_role(current_user, d.datdba, 'USAGE')                         AS is_database_owner,
       c.relispopulated                                                     AS is_populated,
       EXISTS (SELECT
                 FROM pg_index AS i
                      JOIN pg_class AS x ON x.oid = i.indexrelid AND x.relkind = 'i'
                WHERE i.indrelid = c.oid
                  AND i.indisunique
                  AND i.indisvalid
                  AND i.indimmediate
                  AND i.indpred IS NULL
                  AND i.indexprs IS NULL)                                   AS has_unique_index
  FROM pg_class AS c
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_roles AS o ON o.oid = c.relowner
       JOIN pg_database AS d ON d.datname = current_database()
 WHERE c.relkind = 'm'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY n.nspname, c.relname;
