-- What decides how tables can be filled in one transaction: their triggers, and foreign keys among them.
-- Parameters: oids (int8[]). Any role may run it. Any supported PostgreSQL.
-- Triggers that are off already are left out; so are foreign keys of a table to itself, which COPY checks at its
-- end, and those that can wait for the end of the transaction.
SELECT 'trigger'                              AS kind,
       t.tgrelid::int8                        AS oid,
       NULL::int8                             AS other_oid,
       t.tgname::text                         AS name,
       CASE t.tgenabled WHEN 'A' THEN 'ALWAYS'
                        WHEN 'R' THEN 'REPLICA'
                        ELSE ''
       END                                    AS mode
  FROM pg_trigger AS t
 WHERE t.tgrelid::int8 = ANY (%(oids)s::int8[])
   AND NOT t.tgisinternal
   AND t.tgenabled <> 'D'
 UNION ALL
SELECT 'foreign key',
       k.conrelid::int8,
       k.confrelid::int8,
       k.conname::text,
       ''
  FROM pg_constraint AS k
 WHERE k.contype = 'f'
   AND k.conrelid::int8 = ANY (%(oids)s::int8[])
   AND k.confrelid::int8 = ANY (%(oids)s::int8[])
   AND k.conrelid <> k.confrelid
   AND NOT k.condeferrable
 ORDER BY 1, 2, 4;
