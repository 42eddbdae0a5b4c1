-- Which of some tables are not the files that the snapshot saw: what was read of them since is empty.
-- Parameters: oids (int8[]). Run it inside the snapshot. Any role may run it. Any supported PostgreSQL.
SELECT c.oid::int8 AS oid
  FROM pg_class AS c
 WHERE c.oid = ANY (%(oids)s::int8[]::oid[])
   AND c.relkind = 'r'
   AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid);
