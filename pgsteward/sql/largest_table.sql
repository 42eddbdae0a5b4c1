-- The largest table with its TOAST, by pages as of the last VACUUM or ANALYZE: nobody's lock is waited for.
-- Parameters: none. Any role may run it.
SELECT c.oid::regclass::text                                                                        AS name,
       ((c.relpages + coalesce(t.relpages, 0))::int8 * current_setting('block_size')::int8)::int8   AS size_bytes
  FROM pg_class AS c
  LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
 WHERE c.relkind IN ('r', 'm')
 ORDER BY c.relpages + coalesce(t.relpages, 0) DESC
 LIMIT 1;
