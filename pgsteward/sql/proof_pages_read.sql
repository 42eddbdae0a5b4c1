-- The same pages for a role that may read each of the large objects, but not pg_largeobject.
-- Parameters: first, last (OIDs, int8). 262144 is INV_READ, 2 is SEEK_END.
-- Each OFFSET 0 keeps a function from being called twice, or before the object is open.
SELECT s.loid,
       n.pageno::int4                                                              AS pageno,
       rtrim(lo_get(s.loid, n.pageno * s.page_bytes, s.page_bytes), '\x00'::bytea) AS stored,
       s.size_bytes                                                                AS end_byte
  FROM (SELECT f.loid,
               lo_lseek64(f.descriptor, 0, 2)          AS size_bytes,
               lo_close(f.descriptor)                  AS closed,
               current_setting('block_size')::int4 / 4 AS page_bytes
          FROM (SELECT m.oid                  AS loid,
                       lo_open(m.oid, 262144) AS descriptor
                  FROM pg_largeobject_metadata AS m
                 WHERE m.oid BETWEEN %(first)s::int8::oid AND %(last)s::int8::oid
                OFFSET 0) AS f
        OFFSET 0) AS s
 CROSS JOIN LATERAL generate_series(0, (s.size_bytes - 1) / s.page_bytes) AS n (pageno)
 WHERE s.size_bytes > 0
OFFSET 0
