-- Which of some tables are not the ones that the snapshot saw: what was read of them since is another's, or nothing.
-- Parameters: oids (int8[]). Run it inside the snapshot. Any role may run it. Any supported PostgreSQL.
-- pg_class is read as the snapshot sees it; pg_relation_filenode() and to_regclass() tell the present.
SELECT c.oid::int8 AS oid
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%(oids)s::int8[]::oid[])
   AND c.relkind = 'r'
   AND (c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
     OR c.oid IS DISTINCT FROM to_regclass(format('%%I.%%I', n.nspname, c.relname)));
