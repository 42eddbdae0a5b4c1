-- Functions, the functions behind operators, and those that read and write types as text: how far their results
-- can be relied on. An aggregate goes by the functions it is made of.
-- Parameters: functions, operators, inputs, outputs (int8[]): OIDs of functions, of operators, and of types.
-- Needs no privilege. Any supported PostgreSQL.
  WITH used AS (
       SELECT 'functions'  AS kind,
              p.oid        AS named,
              p.oid        AS function
         FROM pg_proc AS p
        WHERE p.oid = ANY (%(functions)s::int8[]::oid[])
        UNION ALL
       SELECT 'operators',
              o.oid,
              o.oprcode
         FROM pg_operator AS o
        WHERE o.oid = ANY (%(operators)s::int8[]::oid[])
        UNION ALL
       SELECT 'inputs',
              t.oid,
              t.typinput
         FROM pg_type AS t
        WHERE t.oid = ANY (%(inputs)s::int8[]::oid[])
        UNION ALL
       SELECT 'outputs',
              t.oid,
              t.typoutput
         FROM pg_type AS t
        WHERE t.oid = ANY (%(outputs)s::int8[]::oid[])
       ),
       parts AS (
       SELECT u.function,
              u.function AS part
         FROM used AS u
        UNION
       SELECT u.function,
              f.oid
         FROM used AS u
              JOIN pg_aggregate AS a ON a.aggfnoid = u.function
              CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                                              a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn,
                                              a.aggmfinalfn]::oid[]) AS f (oid)
       ),
       judged AS (
       SELECT s.function,
              bool_and(p.provolatile = 'i')                    AS is_immutable,
              string_agg(p.oid || ' ' || p.xmin::text, ',' ORDER BY p.oid)
                FILTER (WHERE p.oid >= 16384)                  AS version,
              bool_or(p.oid >= 16384
                      AND p.prosqlbody IS NULL
                      AND l.lanname <> 'c'
                      AND l.lanname <> 'internal'
                      AND NOT EXISTS (SELECT
                                        FROM unnest(p.proconfig) AS c (setting)
                                       WHERE c.setting LIKE 'search_path=%%')) AS may_need_path
         FROM parts AS s
              JOIN pg_proc AS p ON p.oid = s.part
              JOIN pg_language AS l ON l.oid = p.prolang
        GROUP BY s.function
       )
SELECT u.kind,
       u.named::int8                                           AS named,
       u.function::int8                                        AS oid,
       n.nspname                                               AS schema,
       quote_ident(n.nspname) || '.' || quote_ident(p.proname)
         || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name,
       l.lanname                                               AS language,
       j.is_immutable,
       j.version,
       j.may_need_path
  FROM used AS u
       JOIN judged AS j ON j.function = u.function
       JOIN pg_proc AS p ON p.oid = u.function
       JOIN pg_language AS l ON l.oid = p.prolang
       JOIN pg_namespace AS n ON n.oid = p.pronamespace;
