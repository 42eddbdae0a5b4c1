-- What decides how a new session is set: its path, and whether it may choose the language of the server's messages.
-- Parameters: none. Any role may run it. PostgreSQL 15 and later.
SELECT pg_catalog.current_setting('search_path')                       AS path,
       pg_catalog.has_parameter_privilege('lc_messages', 'SET')        AS may_choose_language;
