-- Number, bytes and order-free content hash of all large objects.
-- Parameters: seed_a, seed_b (int8). Needs SELECT on pg_largeobject (superuser, or granted).
-- Holes and zeros read the same and are dumped as zeros: pages lose trailing zeros, empty ones don't count,
-- and the size of each object is hashed beside its pages.
  WITH pages AS (
SELECT p.loid,
       p.pageno,
       rtrim(p.data, '\x00'::bytea)                                          AS stored,
       p.pageno::int8 * (current_setting('block_size')::int8 / 4) + length(p.data) AS end_byte
  FROM pg_largeobject AS p
     ), sizes AS (
SELECT m.oid                          AS loid,
       coalesce(max(g.end_byte), 0)   AS size_bytes
  FROM pg_largeobject_metadata AS m
  LEFT JOIN pages AS g ON g.loid = m.oid
 GROUP BY m.oid
     ), cells AS (
SELECT ROW(g.loid, g.pageno, g.stored)::text COLLATE "C" AS cell
  FROM pages AS g
 WHERE length(g.stored) > 0
 UNION ALL
SELECT ROW(s.loid, s.size_bytes)::text COLLATE "C"
  FROM sizes AS s
     )
SELECT (SELECT count(*) FROM sizes)                                            AS object_count,
       (SELECT coalesce(sum(s.size_bytes), 0)::int8 FROM sizes AS s)           AS size_bytes,
       coalesce(sum(hashtextextended(c.cell, %(seed_a)s::int8)), 0)::text      AS hash_a,
       coalesce(sum(hashtextextended(c.cell, %(seed_b)s::int8)), 0)::text      AS hash_b
  FROM cells AS c;
