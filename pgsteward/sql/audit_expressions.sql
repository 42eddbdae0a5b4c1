-- Expressions and predicates of some indexes, as PostgreSQL itself writes them.
-- Waits for an ACCESS EXCLUSIVE lock on the table.
-- Parameters: oids (int8[]) of indexes.
-- Needs no privilege. PostgreSQL 15+.
SELECT i.indexrelid::int8                                                   AS oid,
       pg_get_expr(i.indpred, i.indrelid)                                   AS predicate,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k.place, false)
               FROM generate_series(1, i.indnkeyatts) AS k (place)
              ORDER BY k.place)                                             AS keys
  FROM pg_index AS i
 WHERE i.indexrelid = ANY (%(oids)s::int8[]::oid[]);
