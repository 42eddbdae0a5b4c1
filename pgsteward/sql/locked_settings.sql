-- Which settings this role may not give to a database: a superuser's, and those that nothing here knows.
-- Parameters: names (text[]). Any role may run it. PostgreSQL 15 and later.
SELECT w.name
  FROM unnest(%(names)s::text[]) AS w (name)
  LEFT JOIN pg_settings AS s ON lower(s.name) = lower(w.name)
 WHERE (s.name IS NULL OR s.context IN ('superuser', 'superuser-backend'))
   AND NOT has_parameter_privilege(w.name, 'SET')
 ORDER BY w.name;
