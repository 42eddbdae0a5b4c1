-- What a VACUUM of one table moves: its record, its dead rows, its ages; its TOAST table included.
-- Parameters: oid (int8) of the table.
-- Needs no privilege. Any supported PostgreSQL.
SELECT pg_stat_get_last_vacuum_time(c.oid)                       AS last_vacuum,
       pg_stat_get_dead_tuples(c.oid)
       + coalesce(pg_stat_get_dead_tuples(t.oid), 0)             AS dead_rows,
       pg_stat_get_live_tuples(c.oid)                            AS live_rows,
       greatest(age(c.relfrozenxid), age(t.relfrozenxid))        AS xid_age,
       greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid))  AS multixact_age,
       pg_table_size(c.oid)                                      AS bytes,
       current_setting('track_counts')::bool                     AS is_counted
  FROM pg_class AS c
       LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
 WHERE c.oid = %(oid)s::int8::oid;
