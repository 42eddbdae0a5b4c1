-- All large objects in ranges of 1,000: first and last OID.
-- Parameters: none. Any role may run it.
SELECT min(m.oid)::int8 AS first,
       max(m.oid)::int8 AS last
  FROM (SELECT p.oid,
               (row_number() OVER (ORDER BY p.oid) - 1) / 1000 AS part
          FROM pg_largeobject_metadata AS p) AS m
 GROUP BY m.part
 ORDER BY m.part;
