-- Bytes of tables with their TOAST, as they are now on disk; relpages knows nothing of a table never vacuumed.
-- Parameters: oids (int8[]). Any role may run it. A table that is gone has none.
SELECT o.oid,
       coalesce(pg_table_size(o.oid::regclass), 0) AS size_bytes
  FROM unnest(%(oids)s::int8[]) AS o (oid);
