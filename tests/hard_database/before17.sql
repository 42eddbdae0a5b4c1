-- Only before PostgreSQL 17, which refuses to fill this: the function finds its table only through search_path, and
-- no restore has one. Such a materialized view stays empty, and must be named.
CREATE MATERIALIZED VIEW hard.search_path_trap AS SELECT k, public.unqualified(k) AS v FROM public.lookup;
CREATE MATERIALIZED VIEW hard.upon_the_trap AS SELECT max(v) AS v FROM hard.search_path_trap;
