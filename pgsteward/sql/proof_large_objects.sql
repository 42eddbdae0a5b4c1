-- Number, bytes and order-free content hash of a range of large objects.
-- Parameters: first, last (their OIDs, int8). Parts: pages (see proof_pages_*), and what of a page and of a size
-- is hashed under each seed: page_a, page_b, size_a, size_b.
-- Holes and zeros read the same and are dumped as zeros: pages lose trailing zeros, empty ones don't count,
-- and the size of each object is hashed beside its pages.
SELECT count(*)                                     AS object_count,
       coalesce(sum(o.size_bytes), 0)::int8         AS size_bytes,
       coalesce(sum(o.pages_a + {size_a}), 0)::text AS hash_a,
       coalesce(sum(o.pages_b + {size_b}), 0)::text AS hash_b
  FROM (SELECT m.oid                                                          AS loid,
               coalesce(max(p.end_byte), 0)                                   AS size_bytes,
               coalesce(sum({page_a}) FILTER (WHERE length(p.stored) > 0), 0) AS pages_a,
               coalesce(sum({page_b}) FILTER (WHERE length(p.stored) > 0), 0) AS pages_b
          FROM pg_largeobject_metadata AS m
          LEFT JOIN ({pages}) AS p ON p.loid = m.oid
         WHERE m.oid BETWEEN %(first)s::int8::oid AND %(last)s::int8::oid
         GROUP BY m.oid) AS o;
