-- Employers first (users 1 to employers), then candidates.
-- Parameters: users, employers (int), seed (int8), base (timestamptz).
INSERT INTO users (email, name, image, role, email_verified, created_at, updated_at)
SELECT 'user' || n || '@' || (ARRAY['mail.example', 'post.example', 'office.example'])[1 + mod(h >> 7, 3)],
       (ARRAY['Ada', 'Björn', 'Chloé', 'Dmitri', 'Eşref', 'Fatou', 'Grace', 'Hiro', 'Inês', 'Jürgen', 'Kwame',
              'Łucja', 'Mary', 'Noor', 'Oscar', 'Priya', 'Quinn', 'Rosa', 'Søren', 'Tomáš'])[1 + mod(h >> 11, 20)]
       || ' ' ||
       (ARRAY['Abe', 'Brandt', 'Costa', 'Diallo', 'Evans', 'Fischer', 'García', 'Hansen', 'Ito', 'Jansen', 'Kim',
              'Lopez', 'Müller', 'Nowak', 'O''Brien', 'Petrov', 'Rossi', 'Sato', 'Traoré', 'Wang'])
       [1 + mod(h >> 23, 20)],
       CASE WHEN mod(h, 3) = 0 THEN 'https://cdn.intowork.example/avatars/' || md5(h::text) || '.webp' END,
       CASE WHEN n <= %(employers)s THEN 'employer' ELSE 'candidate' END,
       CASE WHEN mod(h, 10) < 8 THEN c.created_at + interval '5 minutes' END,
       c.created_at,
       c.created_at
  FROM generate_series(1, %(users)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8) & 9223372036854775807 AS h) AS r
 CROSS JOIN LATERAL (SELECT %(base)s::timestamptz - make_interval(secs => 864000 + mod(h, 63072000)) AS created_at) AS c
 ORDER BY n;
