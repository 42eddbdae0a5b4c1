-- Whether a session is still there. Parameters: pid (int). Any role. Any supported PostgreSQL.
SELECT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = %(pid)s) AS lives;
