-- How many rows of some tables this session has deleted and updated; only differences mean something, and
-- only within one transaction: outside the counters may be sent off and begin anew.
-- Parameters: oids (int8[]) of the tables.
-- Needs no privilege. Any supported PostgreSQL, with track_counts on.
SELECT o.oid                                                  AS oid,
       pg_stat_get_xact_tuples_deleted(o.oid::oid)            AS deleted,
       pg_stat_get_xact_tuples_updated(o.oid::oid)            AS updated
  FROM unnest(%(oids)s::int8[]) AS o (oid);
