-- Tables whose rows a restore may put into another partition of the same tree, with the top of that tree.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
-- Rows are placed by a hash of an enum's OID where an enum is a hash partition key, and a restored enum has other
-- OIDs. pg_dump knows it too, and loads such trees through their top.
  WITH RECURSIVE unstable AS (
       SELECT p.partrelid AS oid
         FROM pg_partitioned_table AS p
        WHERE p.partstrat = 'h'
          AND EXISTS (SELECT
                        FROM unnest(p.partclass) AS c (oid)
                        JOIN pg_opclass AS o ON o.oid = c.oid
                        JOIN pg_opfamily AS f ON f.oid = o.opcfamily
                       WHERE f.opfname = 'enum_ops'
                         AND f.opfnamespace = 'pg_catalog'::regnamespace)
       ),
       below AS (
       SELECT u.oid AS top_oid, i.inhrelid AS oid
         FROM unstable AS u
         JOIN pg_inherits AS i ON i.inhparent = u.oid
        UNION
       SELECT b.top_oid, i.inhrelid
         FROM below AS b
         JOIN pg_inherits AS i ON i.inhparent = b.oid
       )
SELECT n.nspname::text  AS schema_name,
       c.relname::text  AS name,
       tn.nspname::text AS top_schema_name,
       t.relname::text  AS top_name
  FROM below AS b
  JOIN pg_class AS c ON c.oid = b.oid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_class AS t ON t.oid = b.top_oid
  JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
 WHERE c.relkind = 'r'
   AND NOT EXISTS (SELECT
                     FROM below AS above
                    WHERE above.oid = b.top_oid)
 ORDER BY n.nspname, c.relname;
