-- Old sessions come first, as they do in life; exactly the first `expired` ones have expired.
-- Parameters: sessions, expired, users (int), seed (int8), base (timestamptz).
INSERT INTO sessions (id, session_token, user_id, expires)
SELECT md5('session ' || h)::uuid,
       md5('token ' || h),
       1 + mod(h >> 5, %(users)s::int8),
       CASE WHEN n <= %(expired)s
            THEN %(base)s::timestamptz
                 - make_interval(secs => 3600 + 7776000.0 * (%(expired)s - n) / %(expired)s + mod(h, 432000))
            ELSE %(base)s::timestamptz
                 + make_interval(secs => 86400 + 2592000.0 * (n - %(expired)s) / (%(sessions)s - %(expired)s) + mod(h, 432000))
       END
  FROM generate_series(1, %(sessions)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8 + 2) & 9223372036854775807 AS h) AS r
 ORDER BY n;
