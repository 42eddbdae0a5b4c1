-- How old the oldest transaction and multixact of each database are, the oldest first.
-- Parameters: none.
-- Needs no privilege. Any supported PostgreSQL.
SELECT d.datname                                                 AS name,
       age(d.datfrozenxid)                                       AS xid_age,
       mxid_age(d.datminmxid)                                    AS multixact_age,
       d.datallowconn                                            AS can_be_connected,
       current_setting('autovacuum_freeze_max_age')::int8        AS freeze_max_age,
       current_setting('autovacuum_multixact_freeze_max_age')::int8 AS multixact_freeze_max_age
  FROM pg_database AS d
 ORDER BY greatest(age(d.datfrozenxid), mxid_age(d.datminmxid)) DESC, d.datname;
