-- Statements that make some indexes, and their constraints where they have one, all names qualified where
-- the session's search_path is pg_catalog.
-- Waits for an ACCESS EXCLUSIVE lock on the table.
-- Parameters: oids (int8[]) of indexes.
-- Needs no privilege. PostgreSQL 15+.
SELECT i.indexrelid::int8                                                   AS oid,
       pg_get_indexdef(i.indexrelid)                                        AS definition,
       pg_get_constraintdef(k.oid)                                          AS constraint_definition,
       obj_description(i.indexrelid, 'pg_class')                            AS comment
  FROM pg_index AS i
       LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
 WHERE i.indexrelid = ANY (%(oids)s::int8[]::oid[]);
