-- Fixed questions to this server's hash functions: a column for each type that is hashed, named like it.
-- Parameters: none. Any role may run it. The answers are in the manifest: another row here is another method.
SELECT *
  FROM (VALUES
       (false, 0::int2, 0, 0::oid, '2000-01-01'::date, '00000000-0000-0000-0000-000000000000'::uuid,
        '\x'::bytea, ''::name, '0.0.0.0'::inet, '10.0.0.0/8'::cidr, '00:00:00:00:00:00'::macaddr,
        '00:00:00:00:00:00:00:00'::macaddr8, ''::text, ''::varchar, 0::int8, '00:00:00'::time,
        '2000-01-01'::timestamp, '2000-01-01+00'::timestamptz, 0::numeric, 0::float4, 0::float8),
       (true, 1::int2, 1, 1::oid, '2026-11-25'::date, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid,
        '\xdeadbeef00'::bytea, 'Order Lines'::name, '192.168.1.7/24'::inet, '2001:db8::/32'::cidr,
        '08:00:2b:01:02:03'::macaddr, '08:00:2b:01:02:03:04:05'::macaddr8, 'Order Lines, to be hashed'::text,
        'Order Lines'::varchar, 4294967295::int8, '23:59:59.999999'::time, '2026-11-25 02:00:00.5'::timestamp,
        '2026-11-25 02:00:00.5+05:30'::timestamptz, 1.10::numeric, '-0'::float4, '-0'::float8),
       (NULL, -1::int2, -1, 4294967295::oid, '-infinity'::date, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid,
        '\xff'::bytea, 'a'::name, '::ffff:1.2.3.4'::inet, '0.0.0.0/0'::cidr, 'ff:ff:ff:ff:ff:ff'::macaddr,
        'ff:ff:ff:ff:ff:ff:ff:ff'::macaddr8, '~'::text, '~'::varchar, -1::int8, '24:00:00'::time,
        'infinity'::timestamp, '-infinity'::timestamptz, -12345678901234567890.123456789::numeric,
        1.1::float4, 1.1::float8),
       (NULL, NULL, -2147483648, NULL, '4713-01-01 BC'::date, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, -9223372036854775808, NULL, NULL, NULL, 'NaN'::numeric, 'NaN'::float4, '-Infinity'::float8)
       ) AS v ("bool", "int2", "int4", "oid", "date", "uuid", "bytea", "name", "inet", "cidr", "macaddr",
               "macaddr8", "text", "varchar", "int8", "time", "timestamp", "timestamptz", "numeric", "float4",
               "float8")
