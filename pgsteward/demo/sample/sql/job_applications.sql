-- 4 of 9 applications are real; the others are a bot's: short, all over the table, and purged later.
-- A candidate never applies twice for one job: `stride` has no divisor in common with the number of jobs.
-- Parameters: applications, candidates, jobs, stride, lines (int), corpus (bytea: lines of 80 bytes), seed (int8),
-- base (timestamptz).
INSERT INTO job_applications (job_id, candidate_id, status, cover_letter, resume_key, applied_at, updated_at)
SELECT 1 + mod((hashint8extended(mod(n, %(candidates)s::int8), %(seed)s::int8 + 6) & 1073741823)
               + n / %(candidates)s * %(stride)s, %(jobs)s::int8),
       1 + mod(n, %(candidates)s::int8),
       CASE WHEN mod(n, 9) < 5 THEN 'applied'
            ELSE (ARRAY['applied', 'applied', 'viewed', 'viewed', 'shortlisted', 'interview', 'rejected', 'rejected',
                        'accepted'])[1 + mod(h >> 3, 9)] END,
       CASE WHEN mod(n, 9) >= 6
            THEN rtrim(convert_from(substring(%(corpus)s::bytea FROM (1 + 80 * mod(h >> 13, %(lines)s - 6))::int4
                                                               FOR 79), 'UTF8')) END,
       CASE WHEN mod(n, 9) >= 5 THEN 'resumes/' || md5(h::text) || '.pdf' END,
       a.applied_at,
       a.applied_at + make_interval(secs => mod(h >> 5, 864000))
  FROM generate_series(1, %(applications)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8 + 7) & 9223372036854775807 AS h) AS r
 CROSS JOIN LATERAL (SELECT %(base)s::timestamptz - make_interval(secs => 864000 + mod(h, 31536000)) AS applied_at) AS a
 ORDER BY n;
