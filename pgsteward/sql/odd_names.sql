-- Names of schemas, tables, sequences and columns with other than ASCII characters, as bytes.
-- Parameters: none. Any role may run it.
SELECT c.oid::int8                                          AS oid,
       ARRAY[convert_to(n.nspname::text, 'SQL_ASCII'), convert_to(c.relname::text, 'SQL_ASCII'),
             convert_to(coalesce(a.attname::text, ''), 'SQL_ASCII')]
                                                            AS names
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname::text || c.relname::text || coalesce(a.attname::text, '')
       ~ ('[^' || chr(1) || '-' || chr(127) || ']')
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname, a.attnum;
