-- What a cleanup of one table needs: the rights, and that no policy hides rows from our role.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. Any supported PostgreSQL.
SELECT has_table_privilege(c.oid, 'SELECT')                   AS may_select,
       has_table_privilege(c.oid, 'DELETE')                   AS may_delete,
       has_schema_privilege(c.relnamespace, 'USAGE')          AS may_use_schema,
       row_security_active(c.oid)                             AS rows_hidden
  FROM pg_class AS c
 WHERE c.oid = %(oid)s::int8::oid;
