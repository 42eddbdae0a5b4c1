-- An employer works for one company.
-- Parameters: jobs, employers, companies, lines (int), corpus (bytea: lines of 80 bytes),
-- seed (int8), base (timestamptz).
INSERT INTO jobs (company_id, employer_id, title, description, location, location_type, job_type, status, salary_min,
                  salary_max, views_count, posted_at, expires_at, created_at, updated_at)
SELECT 1 + mod(e.employer, %(companies)s::int8),
       1 + e.employer,
       (ARRAY['Junior', 'Senior', 'Lead', 'Interim'])[1 + mod(h >> 3, 4)] || ' '
       || (ARRAY['Accountant', 'Baker', 'Data Engineer', 'Database Administrator', 'Electrician', 'Frontend Developer',
                 'Nurse', 'Product Manager', 'Recruiter', 'Site Reliability Engineer', 'Teacher',
                 'Welder'])[1 + mod(h >> 7, 12)],
       rtrim(convert_from(substring(%(corpus)s::bytea FROM (1 + 80 * mod(h >> 13, %(lines)s - 16))::int4
                                                      FOR (399 + 80 * mod(h >> 29, 4))::int4), 'UTF8')),
       (ARRAY['Berlin', 'Paris', 'Porto', 'Lagos', 'Kyoto', 'Malmö', 'Quito', 'Remote'])[1 + mod(h >> 9, 8)],
       (ARRAY['remote', 'hybrid', 'on_site'])[1 + mod(h >> 11, 3)],
       (ARRAY['full_time', 'full_time', 'part_time', 'contract', 'internship'])[1 + mod(h >> 15, 5)],
       (ARRAY['DRAFT', 'PUBLISHED', 'PUBLISHED', 'PUBLISHED', 'CLOSED', 'ARCHIVED'])[1 + mod(h >> 17, 6)]::job_status,
       CASE WHEN mod(h, 4) > 0 THEN 28000.00 + 250 * mod(h >> 19, 80) END,
       CASE WHEN mod(h, 6) > 0 THEN 48000.50 + 250 * mod(h >> 27, 200) END,
       (power(mod(h >> 21, 1000), 2) / 400)::int4,
       CASE WHEN mod(h >> 17, 6) > 0 THEN c.created_at + interval '1 day' END,
       CASE WHEN mod(h >> 17, 6) > 0 THEN c.created_at + interval '61 days' END,
       c.created_at,
       c.created_at + make_interval(secs => mod(h >> 4, 864000))
  FROM generate_series(1, %(jobs)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8 + 5) & 9223372036854775807 AS h) AS r
 CROSS JOIN LATERAL (SELECT mod(h >> 5, %(employers)s::int8) AS employer) AS e
 CROSS JOIN LATERAL (SELECT %(base)s::timestamptz - make_interval(secs => 864000 + mod(h, 47304000)) AS created_at) AS c
 ORDER BY n;
