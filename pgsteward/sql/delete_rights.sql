-- What a cleanup of one table needs: rights, a heap to walk, and nothing that hides or keeps rows.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. Any supported PostgreSQL.
SELECT has_table_privilege(c.oid, 'SELECT')                   AS may_select,
       has_table_privilege(c.oid, 'DELETE')                   AS may_delete,
       has_any_column_privilege(c.oid, 'UPDATE')              AS may_update,
       has_schema_privilege(c.relnamespace, 'USAGE')          AS may_use_schema,
       row_security_active(c.oid)                             AS rows_hidden,
       m.amname                                               AS access_method,
       ARRAY(SELECT r.rulename::text
               FROM pg_rewrite AS r
              WHERE r.ev_class = c.oid
                AND r.ev_type = '4'
                AND r.ev_enabled <> 'D'
              ORDER BY r.rulename)                            AS rules,
       ARRAY(SELECT t.tgname::text
               FROM pg_trigger AS t
              WHERE t.tgrelid = c.oid
                AND NOT t.tgisinternal
                AND t.tgenabled IN ('O', 'A')
                AND t.tgtype & 8 <> 0
              ORDER BY t.tgname)                              AS triggers,
       ARRAY(SELECT t.tgname::text
               FROM pg_trigger AS t
              WHERE t.tgrelid = c.oid
                AND NOT t.tgisinternal
                AND t.tgenabled IN ('O', 'A')
                AND t.tgtype & 9 = 8
              ORDER BY t.tgname)                              AS statement_triggers,
       EXISTS (SELECT
                 FROM pg_trigger AS t
                WHERE t.tgrelid = c.oid
                  AND NOT t.tgisinternal
                  AND t.tgenabled IN ('O', 'A')
                  AND t.tgtype & 11 = 11)                     AS has_veto
  FROM pg_class AS c
       LEFT JOIN pg_am AS m ON m.oid = c.relam
 WHERE c.oid = %(oid)s::int8::oid;
