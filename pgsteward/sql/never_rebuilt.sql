-- Indexes that are never looked at for a rebuild, counted by kind.
-- Parameters: toast (bool): the indexes of TOAST tables are looked at.
-- Needs no privilege. Any supported PostgreSQL.
SELECT count(*)::int                                                        AS count,
       k.whose                                                              AS of,
       k.reason
  FROM pg_class AS c
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       CROSS JOIN LATERAL (
            SELECT CASE WHEN c.relkind = 'I' THEN 'of partitioned tables'
                        WHEN n.nspname ~ '^pg_(toast_)?temp_' THEN 'of temporary tables'
                        WHEN n.nspname = 'pg_toast' THEN 'of TOAST tables'
                        ELSE 'of system catalogs' END                       AS whose,
                   CASE WHEN c.relkind = 'I' THEN 'they hold nothing; those of the partitions are looked at one by one'
                        WHEN n.nspname ~ '^pg_(toast_)?temp_' THEN 'they belong to sessions'
                        WHEN n.nspname = 'pg_toast' THEN 'toast = true looks at them'
                        ELSE 'they can''t be rebuilt concurrently' END      AS reason
            ) AS k
 WHERE c.relkind = 'I'
    OR c.relkind = 'i' AND (n.nspname IN ('pg_catalog', 'information_schema')
                         OR n.nspname = 'pg_toast' AND NOT %(toast)s
                         OR n.nspname ~ '^pg_(toast_)?temp_')
 GROUP BY k.whose, k.reason
 ORDER BY k.whose;
