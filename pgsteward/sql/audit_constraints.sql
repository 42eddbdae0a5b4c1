-- The constraints of one table. A constraint may be there without holding: NOT VALID, or NOT ENFORCED (from 18 on).
-- Waits for an ACCESS EXCLUSIVE lock on the table.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. PostgreSQL 15+.
SELECT k.oid::int8                                                          AS oid,
       k.conname                                                            AS name,
       k.contype::text                                                      AS kind,
       k.convalidated                                                       AS is_validated,
       coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)                AS is_enforced,
       coalesce((to_jsonb(k) ->> 'conperiod')::bool, false)                 AS is_temporal,
       NOT k.connoinherit                                                   AS is_inherited,
       k.confmatchtype = 'f'                                                AS is_full_match,
       pg_get_expr(k.conbin, k.conrelid)                                    AS condition,
       ARRAY(SELECT a.attname
               FROM unnest(k.conkey) WITH ORDINALITY AS c (num, place)
                    JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = c.num
              ORDER BY c.place)                                             AS columns,
       fn.nspname                                                           AS referenced_schema,
       ft.relname                                                           AS referenced_table,
       ft.relkind::text                                                     AS referenced_kind,
       ARRAY(SELECT a.attname
               FROM unnest(k.confkey) WITH ORDINALITY AS c (num, place)
                    JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = c.num
              ORDER BY c.place)                                             AS referenced_columns
  FROM pg_constraint AS k
       LEFT JOIN pg_class AS ft ON ft.oid = k.confrelid
       LEFT JOIN pg_namespace AS fn ON fn.oid = ft.relnamespace
 WHERE k.conrelid = %(oid)s::int8::oid
 ORDER BY k.conname;
