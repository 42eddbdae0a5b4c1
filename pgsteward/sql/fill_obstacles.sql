-- What decides how tables can be filled in one transaction: triggers that would fire, foreign keys among them, and
-- constraints that hold for new rows only.
-- Parameters: oids (int8[]), moving (int8[], those of them that are filled through the top of their tree).
-- Any role may run it. Any supported PostgreSQL.
-- Event triggers are those that hear of triggers that are put off; may_alter says whether they can be put off too.
-- What is off already is left out; so are foreign keys of a table to itself, which COPY checks at its end, and
-- those that can wait for the end of the transaction.
SELECT 'trigger'                              AS kind,
       t.tgrelid::int8                        AS oid,
       NULL::int8                             AS other_oid,
       n.nspname::text                        AS schema_name,
       c.relname::text                        AS table_name,
       t.tgname::text                         AS name,
       CASE t.tgenabled WHEN 'A' THEN 'ALWAYS'
                        WHEN 'R' THEN 'REPLICA'
                        ELSE ''
       END                                    AS mode,
       NULL::bool                             AS may_alter
  FROM pg_trigger AS t
  JOIN pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE NOT t.tgisinternal
   AND t.tgenabled <> 'D'
   AND (t.tgrelid::int8 = ANY (%(oids)s::int8[])
        OR (t.tgtype & 1 = 0
            AND t.tgrelid IN (SELECT pg_partition_root(m.oid::oid)::oid
                                FROM unnest(%(moving)s::int8[]) AS m (oid))))
 UNION ALL
SELECT 'event trigger',
       NULL,
       NULL,
       NULL,
       NULL,
       e.evtname::text,
       CASE e.evtenabled WHEN 'A' THEN 'ALWAYS'
                         WHEN 'R' THEN 'REPLICA'
                         ELSE ''
       END,
       pg_has_role(e.evtowner, 'USAGE')
  FROM pg_event_trigger AS e
 WHERE e.evtenabled <> 'D'
   AND e.evtevent IN ('ddl_command_start', 'ddl_command_end')
   AND 'ALTER TABLE' = ANY (coalesce(e.evttags, '{ALTER TABLE}'))
 UNION ALL
SELECT 'foreign key',
       k.conrelid::int8,
       k.confrelid::int8,
       NULL,
       NULL,
       k.conname::text,
       '',
       NULL
  FROM pg_constraint AS k
 WHERE k.contype = 'f'
   AND k.conrelid::int8 = ANY (%(oids)s::int8[])
   AND k.confrelid::int8 = ANY (%(oids)s::int8[])
   AND k.conrelid <> k.confrelid
   AND NOT k.condeferrable
 UNION ALL
SELECT 'not valid',
       k.conrelid::int8,
       NULL,
       NULL,
       NULL,
       k.conname::text,
       '',
       NULL
  FROM pg_constraint AS k
 WHERE k.conrelid::int8 = ANY (%(oids)s::int8[])
   AND NOT k.convalidated
   AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
 ORDER BY 1, 2, 6;
