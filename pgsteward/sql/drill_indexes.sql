-- Every B-tree index of users' tables that amcheck can look at.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT i.indexrelid::int8 AS oid,
       n.nspname::text    AS schema_name,
       c.relname::text    AS name
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_am AS a ON a.oid = c.relam
 WHERE a.amname = 'btree'
   AND c.relkind = 'i'
   AND c.relpersistence = 'p'
   AND i.indisvalid
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND n.nspname NOT LIKE 'pg\_toast%'
 ORDER BY n.nspname, c.relname;
