-- Parameters: companies, lines (int), corpus (bytea: lines of 80 bytes), seed (int8), base (timestamptz).
INSERT INTO companies (name, slug, industry, website, description, created_at)
SELECT w.name || ' ' || n,
       lower(w.name) || '-' || n,
       (ARRAY['Software', 'Logistics', 'Health', 'Energy', 'Finance', 'Retail', 'Education', NULL])
       [1 + mod(h >> 9, 8)],
       'https://www.' || lower(w.name) || n || '.example',
       rtrim(convert_from(substring(%(corpus)s::bytea FROM (1 + 80 * mod(h >> 13, %(lines)s - 6))::int4
                                                      FOR 399), 'UTF8')),
       %(base)s::timestamptz - make_interval(secs => 864000 + mod(h, 94608000))
  FROM generate_series(1, %(companies)s::int8) AS n
 CROSS JOIN LATERAL (SELECT hashint8extended(n, %(seed)s::int8 + 3) & 9223372036854775807 AS h) AS r
 CROSS JOIN LATERAL (SELECT (ARRAY['Acorn', 'Beacon', 'Cobalt', 'Delta', 'Ember', 'Fjord', 'Granite', 'Harbor',
                                   'Iris', 'Juniper'])[1 + mod(h >> 5, 10)] AS name) AS w
 ORDER BY n;
