-- One account for every user, a second one for every fourth.
-- Parameters: users (int), seed (int8), base (timestamptz).
INSERT INTO accounts (user_id, type, provider, provider_account_id, refresh_token, expires_at, token_type, scope)
SELECT u,
       'oauth',
       (ARRAY['google', 'github', 'linkedin'])[1 + mod(h + k, 3)],
       ((h >> 3) + k)::text,
       '1//' || md5(h::text || k) || md5(k || h::text),
       extract(epoch FROM %(base)s::timestamptz)::int8 + 3600 - mod(h, 7776000),
       'Bearer',
       'openid email profile'
  FROM generate_series(1, %(users)s::int8) AS u
 CROSS JOIN generate_series(0, 1) AS k
 CROSS JOIN LATERAL (SELECT hashint8extended(u, %(seed)s::int8 + 1) & 9223372036854775807 AS h) AS r
 WHERE k = 0
    OR mod(u, 4) = 0
 ORDER BY u, k;
