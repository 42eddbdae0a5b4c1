-- The tables, views and sequences that one of pg_dump's table patterns chooses.
-- Parameters: schema (regular expression, or NULL: what the search_path shows), name (regular expression).
-- Any role may run it. Any supported PostgreSQL.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS name
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p')
   AND c.relname ~ %(name)s
   AND CASE WHEN %(schema)s::text IS NULL THEN pg_table_is_visible(c.oid)
            ELSE n.nspname ~ %(schema)s
       END;
