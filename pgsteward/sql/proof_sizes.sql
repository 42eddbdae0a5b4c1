-- How large tables are, roughly and without waiting for anybody's lock: pages as of the last VACUUM or ANALYZE
-- with those of TOAST, or what the counters of rows say where there was none.
-- Parameters: oids (int8[]). Any role may run it.
SELECT c.oid::int8                                                     AS oid,
       greatest(c.relpages, pg_stat_get_live_tuples(c.oid) / 100)::int8
     + coalesce(t.relpages, 0)                                         AS pages
  FROM pg_class AS c
  LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
 WHERE c.oid = ANY (%(oids)s::int8[]::oid[]);
