-- Bytes of relations' main forks; NULL for one that is gone.
-- It waits for whoever holds or awaits ACCESS EXCLUSIVE on one of them: give the session a lock_timeout.
-- Parameters: oids (int8[]).
-- Needs no privilege. Any supported PostgreSQL.
SELECT o                                                                    AS oid,
       pg_relation_size(o::oid)                                             AS bytes
  FROM unnest(%(oids)s::int8[]) AS o;
