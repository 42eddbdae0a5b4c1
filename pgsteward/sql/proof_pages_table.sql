-- Pages of a range of large objects as they are stored: number, bytes without trailing zeros, end in the object.
-- Parameters: first, last (OIDs, int8). Needs SELECT on pg_largeobject (superuser, or granted).
SELECT l.loid,
       l.pageno,
       rtrim(l.data, '\x00'::bytea)                                                AS stored,
       l.pageno::int8 * (current_setting('block_size')::int8 / 4) + length(l.data) AS end_byte
  FROM pg_largeobject AS l
 WHERE l.loid BETWEEN %(first)s::int8::oid AND %(last)s::int8::oid
OFFSET 0
