-- Since when this server counts what happens in this database, and whether it does.
-- A crash sets all counters back and leaves pg_stat_database.stats_reset as it was, NULL at first: what is kept
-- for the whole server moves to the moment of the recovery.
-- Parameters: none.
-- Standbys of others need pg_read_all_stats to be told apart. PostgreSQL 15+.
SELECT now()                                                                AS now,
       greatest(d.stats_reset, b.stats_reset)                               AS since,
       current_setting('track_counts')::bool                                AS is_counting,
       pg_is_in_recovery()                                                  AS is_standby,
       (SELECT c.system_identifier::text FROM pg_control_system() AS c)     AS system_identifier,
       d.datid::int8                                                        AS database_oid,
       ARRAY(SELECT coalesce(nullif(r.application_name, ''), 'walreceiver')
               FROM pg_stat_replication AS r
              WHERE r.state IS DISTINCT FROM 'backup'
                AND coalesce(r.application_name, '') !~ '^(pg_receivewal|pg_basebackup|barman)'
                AND NOT EXISTS (SELECT FROM pg_replication_slots AS s
                                 WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
              ORDER BY 1)                                                   AS standbys
  FROM pg_stat_database AS d
       CROSS JOIN pg_stat_bgwriter AS b
 WHERE d.datname = current_database();
