-- Candidate n is user employers + n.
-- Parameters: candidates, employers, lines (int), corpus (bytea: lines of 80 bytes), seed (int8), base (timestamptz).
INSERT INTO candidates (user_id, headline, location, skills, profile, salary_expectation_min, salary_expectation_max,
                        created_at, updated_at)
SELECT %(employers)s + n,
       rtrim(convert_from(substring(%(corpus)s::bytea FROM (1 + 80 * mod(h >> 13, %(lines)s - 6))::int4
                                                      FOR 79), 'UTF8')),
       (ARRAY['Berlin', 'Paris', 'Porto', 'Lagos', 'Kyoto', 'Malmö', 'Quito', 'Remote'])[1 + mod(h >> 9, 8)],
       (ARRAY['SQL', 'Python', 'Go', 'Rust', 'Sales', 'Design', 'Nursing', 'Welding', 'French', 'Teaching'])
       [1 + mod(h >> 15, 5) : 5 + mod(h >> 19, 6)],
       jsonb_build_object('years', mod(h >> 21, 30), 'resume', md5(h::text), 'open_to_work', mod(h, 2) = 0),
       CASE WHEN mod(h, 5) > 0 THEN 30000 + 500 * mod(h >> 17, 60)::int4 END,
       CASE WHEN mod(h, 7) > 0 THEN 65000 + 500 * mod(h >> 25, 100)::int4 END,
       %(base)s::timestamptz - make_interval(secs => 864000 + mod(h, 63072000)),
       %(base)s::timestamptz - make_interval(secs => mod(h >> 5, 864000))
  FROM generate_series(1, %(candidates)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8 + 4) & 9223372036854775807 AS h) AS r
 ORDER BY n;
