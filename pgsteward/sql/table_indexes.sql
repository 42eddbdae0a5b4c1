-- The indexes of one table, valid or not. Two of one shape index the same: a rebuild makes a second one.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. Any supported PostgreSQL.
SELECT i.indexrelid::int8                                                   AS oid,
       n.nspname                                                            AS schema,
       c.relname                                                            AS name,
       i.indisvalid                                                         AS is_valid,
       md5(concat_ws('|', c.relam, i.indisunique, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
                     pg_get_expr(i.indexprs, i.indrelid), '|', pg_get_expr(i.indpred, i.indrelid))) AS shape
  FROM pg_index AS i
       JOIN pg_class AS c ON c.oid = i.indexrelid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE i.indrelid = %(oid)s::int8::oid
 ORDER BY i.indexrelid;
