-- The columns of a table, and in what type each is kept beside it.
-- Parameters: schema (text), name (text). Any role may run it. Any supported PostgreSQL.
-- Kept in its own type is what is PostgreSQL's own, a domain in what it is made of; all others are kept as text:
-- their types may be other ones in another database, or say something else there (a regclass is an OID).
-- Unbound is its type without a domain and without a length: a cast to a length cuts what is too long, in silence.
-- Values of exact types are equal only where they are the same; text and varchar are under collation C.
  WITH RECURSIVE bases AS (
       SELECT a.attnum, a.atttypid AS oid, a.atttypmod AS typmod
         FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s::text))
          AND a.attnum > 0
          AND NOT a.attisdropped
        UNION ALL
       SELECT b.attnum, t.typbasetype, t.typtypmod
         FROM bases AS b
         JOIN pg_type AS t ON t.oid = b.oid
        WHERE t.typtype = 'd'
       )
SELECT a.attname::text                                AS name,
       format_type(a.atttypid, a.atttypmod)           AS type,
       CASE WHEN own.is_ours THEN format_type(b.oid, b.typmod)
            ELSE 'text'
       END                                            AS kept_as,
       format_type(b.oid, -1)                         AS unbound,
       CASE WHEN t.typname = ANY ('{bool,int2,int4,int8,oid,date,uuid,bytea,time,timestamp,timestamptz}')
                 AND own.is_ours THEN 'exact'
            WHEN t.typname = ANY ('{text,varchar}') AND own.is_ours THEN 'text'
            ELSE 'other'
       END                                            AS equality,
       a.attgenerated <> ''                           AS generated,
       a.attidentity = 'a'                            AS identity_always,
       a.attidentity <> ''                            AS identity,
       a.attnotnull AND NOT a.atthasdef
                    AND a.attidentity = ''            AS value_required
  FROM bases AS b
  JOIN pg_type AS t ON t.oid = b.oid AND t.typtype <> 'd'
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s::text))
                        AND a.attnum = b.attnum
  LEFT JOIN pg_type AS element ON element.oid = t.typelem AND t.typcategory = 'A'
 CROSS JOIN LATERAL (
       SELECT t.typnamespace = 'pg_catalog'::regnamespace
          AND coalesce(element.typtype, t.typtype) IN ('b', 'r', 'm')
          AND coalesce(element.typname, t.typname) !~ '^(reg|xml$|aclitem$|refcursor$)' AS is_ours) AS own
 ORDER BY a.attnum;
