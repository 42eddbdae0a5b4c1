-- What pg_dump has the server write down as it is at that moment, whatever its snapshot saw: names, and what views,
-- rules, triggers and functions with a parsed body do. Columns belong to relations, values to enums; an index or a
-- trigger that is gone is left out without a word. pg_dump takes no invalid index, such as REINDEX leaves behind.
-- table_name: of the table or view that it goes with; NULL where it does with none, or may come with any.
-- Parameters: oids (int8[]): of these objects; NULL means those whose row was replaced or deleted since the snapshot,
-- so run it inside one. kinds (text[]), schemas (text[]): only these; NULL means all.
-- Any role may run it. Any supported PostgreSQL.
SELECT d.kind,
       d.oid::int8                                        AS oid,
       d.part,
       n.nspname::text                                    AS schema_name,
       d.name::text                                       AS name,
       d.table_name::text                                 AS table_name,
       d.state::text                                      AS state
  FROM (SELECT 'relation' AS kind, c.oid, 0 AS part, c.relnamespace AS namespace, c.relname AS name,
               c.relname::text AS state, c.xmax AS replaced,
               coalesce(t.relname, CASE WHEN c.relkind NOT IN ('S', 'c') THEN c.relname END) AS table_name
          FROM pg_class AS c
          LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
          LEFT JOIN pg_class AS t ON t.oid = i.indrelid
         WHERE c.relkind <> 't'
           AND (c.relkind <> 'i' OR i.indisvalid)
         UNION ALL
        SELECT 'column', a.attrelid, a.attnum, c.relnamespace, a.attname, a.attname::text, a.xmax,
               CASE WHEN c.relkind NOT IN ('S', 'c') THEN c.relname END
          FROM pg_attribute AS a
          JOIN pg_class AS c ON c.oid = a.attrelid
         WHERE a.attnum > 0
           AND NOT a.attisdropped
           AND c.relkind NOT IN ('i', 'I')
         UNION ALL
        SELECT 'view or rule', r.oid, 0, c.relnamespace, c.relname,
               md5(concat(r.ev_qual, r.ev_action)), r.xmax, c.relname
          FROM pg_rewrite AS r
          JOIN pg_class AS c ON c.oid = r.ev_class
         UNION ALL
        SELECT 'trigger', t.oid, 0, c.relnamespace, t.tgname,
               concat(t.tgname, ' ', t.tgfoid, ' ', md5(t.tgqual::text)), t.xmax, c.relname
          FROM pg_trigger AS t
          JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE NOT t.tgisinternal
         UNION ALL
        SELECT 'statistics', s.oid, 0, s.stxnamespace, s.stxname, s.stxname::text, s.xmax, NULL
          FROM pg_statistic_ext AS s
         UNION ALL
        SELECT 'type', t.oid, 0, t.typnamespace, t.typname, t.typname::text, t.xmax, NULL
          FROM pg_type AS t
         WHERE t.typrelid = 0
           AND t.typelem = 0
         UNION ALL
        SELECT 'enum value', e.oid, 0, t.typnamespace, e.enumlabel, e.enumlabel::text, e.xmax, NULL
          FROM pg_enum AS e
          JOIN pg_type AS t ON t.oid = e.enumtypid
         UNION ALL
        SELECT 'function', p.oid, 0, p.pronamespace, p.proname,
               concat(p.proname, ' ', md5(concat(p.proargdefaults, p.prosqlbody))), p.xmax, NULL
          FROM pg_proc AS p
         UNION ALL
        SELECT 'operator', o.oid, 0, o.oprnamespace, o.oprname, o.oprname::text, o.xmax, NULL
          FROM pg_operator AS o
         UNION ALL
        SELECT 'collation', c.oid, 0, c.collnamespace, c.collname, c.collname::text, c.xmax, NULL
          FROM pg_collation AS c
         UNION ALL
        SELECT 'schema', s.oid, 0, s.oid, s.nspname, s.nspname::text, s.xmax, NULL
          FROM pg_namespace AS s) AS d
  JOIN pg_namespace AS n ON n.oid = d.namespace
 WHERE n.nspname !~ '^pg_'
   AND n.nspname <> 'information_schema'
   AND (%(kinds)s::text[] IS NULL OR d.kind = ANY (%(kinds)s::text[]))
   AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s::text[]))
   AND CASE WHEN %(oids)s::int8[] IS NULL THEN d.replaced <> 0
            ELSE d.oid = ANY (%(oids)s::int8[]::oid[])
       END
 ORDER BY d.kind, n.nspname, d.name;
