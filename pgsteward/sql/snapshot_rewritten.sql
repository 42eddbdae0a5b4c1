-- Tables that were rewritten, truncated, dropped or renamed since the snapshot was taken.
-- Parameters: none; run it inside the snapshot, once the dump holds its locks. Any role may run it.
-- pg_class is read as the snapshot sees it; pg_relation_filenode() and to_regclass() tell the present.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS name
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r'
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
   AND (c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
     OR c.oid IS DISTINCT FROM to_regclass(format('%I.%I', n.nspname, c.relname)))
 ORDER BY n.nspname, c.relname;
