-- Tables with stored generated columns, which a restore computes anew.
-- Parameters: none. Any role may run it.
SELECT n.nspname::text                                           AS schema_name,
       c.relname::text                                           AS name,
       string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE a.attgenerated = 's'
   AND NOT a.attisdropped
   AND c.relkind = 'r'
 GROUP BY n.nspname, c.relname;
