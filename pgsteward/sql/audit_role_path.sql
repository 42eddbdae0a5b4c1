-- The search_path that the role or the database sets, whatever this session has set since.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT s.reset_val                                       AS search_path
  FROM pg_settings AS s
 WHERE s.name = 'search_path';
