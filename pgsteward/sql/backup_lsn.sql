-- Where the write-ahead log stands, on a primary or a standby.
-- Parameters: none. Any role.
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
             ELSE pg_current_wal_insert_lsn() END)::text AS lsn;
