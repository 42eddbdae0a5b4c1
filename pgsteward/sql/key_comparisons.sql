-- How PostgreSQL compares the two sides of foreign keys, written so that no search_path changes it.
-- Parameters: oids (int8[]) of the constraints.
-- Needs no privilege. PostgreSQL 15+.
SELECT k.oid::int8                                                          AS oid,
       '::' || quote_ident(ln.nspname) || '.' || quote_ident(lt.typname)    AS referenced_cast,
       'OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')'     AS operator,
       '::' || quote_ident(rn.nspname) || '.' || quote_ident(rt.typname)
         || CASE WHEN rt.typcollation <> 0
                 THEN coalesce(' COLLATE ' || quote_ident(cn.nspname) || '.' || quote_ident(c.collname), '')
                 ELSE '' END                                                AS referring_cast
  FROM pg_constraint AS k
       CROSS JOIN LATERAL unnest(k.conpfeqop, k.confkey) WITH ORDINALITY AS u (operator, num, place)
       JOIN pg_operator AS o ON o.oid = u.operator
       JOIN pg_namespace AS n ON n.oid = o.oprnamespace
       JOIN pg_type AS lt ON lt.oid = o.oprleft
       JOIN pg_namespace AS ln ON ln.oid = lt.typnamespace
       JOIN pg_type AS rt ON rt.oid = o.oprright
       JOIN pg_namespace AS rn ON rn.oid = rt.typnamespace
       JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.num
       LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
       LEFT JOIN pg_namespace AS cn ON cn.oid = c.collnamespace
 WHERE k.oid = ANY (%(oids)s::int8[]::oid[])
 ORDER BY k.oid, u.place;
