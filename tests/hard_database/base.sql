-- A database in which everything that makes dumps, restores and proofs go wrong has its place.
-- Needs the roles "Hard Owner" and hard_reader. PostgreSQL 15 and later, no extension; the other files of this folder
-- add what needs a newer server, a contrib module, libxml or ICU.

-- Types upon types ---------------------------------------------------------------------------------------------
CREATE SCHEMA "Sch ""q"" 100%s.x";
CREATE SCHEMA hard AUTHORIZATION "Hard Owner";
CREATE TYPE hard.mood AS ENUM ('sad', 'so so', 'it''s "ok"', '');
CREATE DOMAIN hard.positive AS int DEFAULT 7 CONSTRAINT "above zero" CHECK (VALUE > 0);
CREATE DOMAIN hard.small AS hard.positive NOT NULL CONSTRAINT small_enough CHECK (VALUE < 1000);
CREATE DOMAIN hard.label AS text COLLATE "C" CHECK (VALUE <> '');
CREATE TYPE hard.address AS (street text, house hard.positive, mood hard.mood, tags text[]);
CREATE TYPE hard.person AS (name hard.label, home hard.address, others hard.address[]);
ALTER TYPE hard.person ADD ATTRIBUTE gone int, ADD ATTRIBUTE born date;
ALTER TYPE hard.person DROP ATTRIBUTE gone;
CREATE DOMAIN hard.good_address AS hard.address CHECK ((VALUE).house IS NULL OR (VALUE).house < 10000);
CREATE DOMAIN hard.tags AS text[] CHECK (cardinality(VALUE) < 10);
CREATE TYPE hard.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = hard.floats);
CREATE TYPE hard.moodrange AS RANGE (subtype = hard.mood);
CREATE TYPE hard.addressrange AS RANGE (subtype = hard.address);
CREATE TYPE hard.shell;

CREATE TABLE hard.every_type (
    id            int PRIMARY KEY,
    mood          hard.mood,
    moods         hard.mood[],
    small         hard.positive,
    smalls        hard.small[],
    label         hard.label,
    address       hard.address,
    addresses     hard.address[],
    good_address  hard.good_address,
    person        hard.person,
    people        hard.person[],
    tags          hard.tags,
    floatrange    hard.floatrange,
    floatranges   hard.floatrange[],
    floats        hard.floats,
    moodrange     hard.moodrange,
    addressrange  hard.addressrange,
    ints          int4multirange,
    times         tstzrange,
    num           numeric,
    num_2         numeric(10, 2),
    num_minus     numeric(3, -2),
    nums          numeric[],
    f4            real,
    f8            double precision,
    f8s           double precision[],
    money         money,
    bits          bit(5),
    varbits       bit varying,
    js            json,
    jb            jsonb,
    jpath         jsonpath,
    bin           bytea,
    bins          bytea[],
    uid           uuid,
    ts            timestamp,
    tstz          timestamptz,
    d             date,
    t             time,
    ttz           timetz,
    span          interval,
    spans         interval[],
    net           inet,
    cid           cidr,
    mac           macaddr,
    mac8          macaddr8,
    pt            point,
    pts           point[],
    ln            line,
    seg           lseg,
    bx            box,
    pth           path,
    poly          polygon,
    circ          circle,
    tsv           tsvector,
    tsq           tsquery,
    one_char      "char",
    nam           name,
    fixed         char(6),
    short         varchar(10),
    words         text,
    "time zone"   text COLLATE "POSIX",
    object        oid,
    relation      regclass,
    relations     regclass[],
    type          regtype,
    function      regprocedure,
    role          regrole,
    lsn           pg_lsn,
    snap          pg_snapshot,
    xid           xid8,
    ctid_like     tid,
    cur           refcursor,
    yes           boolean
);
INSERT INTO hard.every_type VALUES
(1, 'sad', '{sad,NULL,"so so"}', 5, '{1,2}', 'x', ('Main "St", \', 1, 'sad', '{a,"b,c"}'),
 ARRAY[('a', 1, 'sad', NULL), NULL]::hard.address[], ('b', 2, NULL, '{}'),
 ('n', ('s', 1, 'sad', '{}'), ARRAY[('t', 2, 'so so', '{NULL}')]::hard.address[], '2000-02-29'),
 '[2:2]={NULL}', '{x,y}', '[1.5,2.5)', '{"[1,2)",empty}', '{[1,2),[5,)}', '[sad,"so so"]',
 hard.addressrange(('a', 1, 'sad', NULL), ('b', 1, 'sad', NULL)), '{[1,3),[7,9)}',
 '[2026-10-25 00:30+02,2026-10-25 02:30+01)', 1.1, 1.10, 1234, '{NaN,Infinity,-Infinity,0.00}', '-0', '-0',
 '{0,-0,NaN,Infinity}', -3.50, B'10101', B'', ' {"a" : 1,  "a":2, "u":"\u00e9"} ',
 '{"b": 1.10, "a": [null, "é"]}', '$.a[*] ? (@ > 1)', '\x00ff', '{"\\x00",NULL}',
 '00000000-0000-0000-0000-000000000001', 'infinity', '-infinity', 'infinity', '24:00', '12:00+05:30',
 '1 mon', '{"30 days","720:00:00",-1 mon +1 day}', '::1/128', '10/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
 '(1.1,-0)', '{"(1,2)","(3,4)"}', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]',
 '((0,0),(1,1),(2,0))', '<(0,0),1.5>', '''a b'':1A c:2,3', 'a & (b | !c)', 'x', 'pg_class', 'ab', E'tab\t',
 E'line\nbreak \\N \\. é € 𝄞', 'UTC', 4294967295, 'pg_class', '{pg_class,NULL}', 'int4', 'lower(text)', 'hard_reader',
 '16/B374D848', '10:20:10,14,15', '18446744073709551615', '(0,1)', 'c', true),
(2, '', '[0:1]={sad,""}', 7, '[-1:0][2:2]={{1},{2}}', 'é', ROW(NULL, NULL, NULL, NULL), '{}', NULL,
 ROW(NULL, NULL, NULL, NULL), '{}', '{}', 'empty', '{}', '{}', '(,)', '(,)', '{}', 'empty', 'NaN', 1.1, -5678, '{}',
 'NaN', 0, '{}', 0, B'00000', B'0', '1.0', '1.0', 'strict $', '', '{}', '00000000-0000-0000-0000-000000000000',
 '0044-03-15 12:00:00 BC', '1900-01-01 00:00:00.000001+00', '4713-01-01 BC', '00:00', '00:00-15:59',
 '-1 mons 1 day -00:00:00.000001', '{}', '0.0.0.0/0', '::/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00',
 '(NaN,Infinity)', '{}', '{0,-1,0}', '[(0,0),(0,0)]', '(0,0),(0,0)', '((0,0))', '((0,0))', '<(0,0),0>', '', '', '', '',
 '', '', '', '', 0, '-', '{}', '-', '-', '-', '0/0', '1:1:', '0', '(4294967295,65535)', '', false);
INSERT INTO hard.every_type (id, small) VALUES (3, NULL);
INSERT INTO hard.every_type (id, num, num_2, f8, span, jb, small) VALUES
(4, 1.10, 'NaN', '-0', '30 days', '1.00', 1), (5, 'Infinity', 0, 0, '720:00:00', '{"a": 1e0}', 999),
(6, '-Infinity', -0.00, 1e-300, '0', 'null', 1);

CREATE TABLE hard.of_type OF hard.address (street WITH OPTIONS PRIMARY KEY, house WITH OPTIONS DEFAULT 9);
INSERT INTO hard.of_type VALUES ('one', 1, 'sad', '{}'), ('two', DEFAULT, NULL, NULL);
CREATE TABLE hard.row_as_type (id int, row_of hard.of_type, rows_of hard.of_type[]);
INSERT INTO hard.row_as_type VALUES (1, ROW('x', 1, 'sad', NULL), ARRAY[ROW('y', 2, NULL, '{}')]::hard.of_type[]);

-- Names --------------------------------------------------------------------------------------------------------
CREATE TABLE "Sch ""q"" 100%s.x"."Order Lines %s %% ""x"" $1 ; -- \ ' é" (
    "Id %(id)s" bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY,
    "a.b" text DEFAULT '%s', "select" int, "new
line" int, "Ünïcode 名" text, "{brace}" int
);
INSERT INTO "Sch ""q"" 100%s.x"."Order Lines %s %% ""x"" $1 ; -- \ ' é" ("select", "Ünïcode 名")
SELECT g, '100% ' || g FROM generate_series(1, 500) AS g;
CREATE TABLE "Sch ""q"" 100%s.x"."new
line"
 (a int, b serial);
INSERT INTO "Sch ""q"" 100%s.x"."new
line"
 (a) VALUES (1), (1), (NULL);
CREATE TABLE hard."éééééééééééééééééééééééééééééééx" ("éééééééééééééééééééééééééééééééx" serial PRIMARY KEY);
INSERT INTO hard."éééééééééééééééééééééééééééééééx" DEFAULT VALUES;
CREATE INDEX "Index on ""it""" ON hard."éééééééééééééééééééééééééééééééx" (("éééééééééééééééééééééééééééééééx" * 2));
CREATE TABLE hard."MixedCase" (a int); CREATE TABLE hard.mixedcase (a int); CREATE TABLE hard." " (" " int);
INSERT INTO hard."MixedCase" VALUES (1); INSERT INTO hard.mixedcase VALUES (2), (3); INSERT INTO hard." " VALUES (4);

-- Shapes -------------------------------------------------------------------------------------------------------
CREATE TABLE hard.no_columns ();
INSERT INTO hard.no_columns DEFAULT VALUES; INSERT INTO hard.no_columns DEFAULT VALUES;
CREATE TABLE hard.empty (a int, b text);
CREATE TABLE hard.gone_column (a int, b int, c text, d int);
INSERT INTO hard.gone_column VALUES (1, 2, 'x', 4);
ALTER TABLE hard.gone_column DROP COLUMN b, ADD COLUMN e text DEFAULT 'fast default', ADD COLUMN f int NOT NULL DEFAULT 5;
INSERT INTO hard.gone_column VALUES (2, 'y', 5);
CREATE TABLE hard.all_gone (a int, b int); INSERT INTO hard.all_gone VALUES (1, 2), (3, 4);
ALTER TABLE hard.all_gone DROP COLUMN a, DROP COLUMN b;
CREATE TABLE hard.toasted (id int, body text, outside text, packed bytea);
ALTER TABLE hard.toasted ALTER body SET STORAGE EXTENDED, ALTER outside SET STORAGE EXTERNAL;
INSERT INTO hard.toasted
SELECT g, repeat('compressible ', 20000), string_agg(md5(g::text || i), ''), decode(string_agg(md5(i::text), ''), 'hex')
  FROM generate_series(1, 3) AS g, generate_series(1, 3000) AS i GROUP BY g;
INSERT INTO hard.toasted VALUES (4, '', NULL, '');
CREATE UNLOGGED TABLE hard.unlogged (a int PRIMARY KEY, b serial); INSERT INTO hard.unlogged VALUES (1), (2);
CREATE ACCESS METHOD "Heap 2" TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE hard.other_access_method (a int) USING "Heap 2"; INSERT INTO hard.other_access_method VALUES (1);
CREATE TABLE hard.duplicates (a int, b text);
INSERT INTO hard.duplicates SELECT 1, 'same' FROM generate_series(1, 10);
INSERT INTO hard.duplicates SELECT NULL, NULL FROM generate_series(1, 3);
CREATE TABLE hard.tuned (a int, b text, c text) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE hard.tuned ALTER a SET STATISTICS 500, ALTER b SET (n_distinct = -0.5), REPLICA IDENTITY FULL;
CREATE UNIQUE INDEX tuned_a ON hard.tuned (a DESC NULLS LAST) INCLUDE (c) WITH (fillfactor = 80) WHERE b IS NOT NULL;
CREATE UNIQUE INDEX tuned_null ON hard.tuned (a, b) NULLS NOT DISTINCT;
ALTER TABLE hard.tuned CLUSTER ON tuned_null;
CREATE STATISTICS hard."Stat s" (ndistinct, mcv) ON a, b, lower(c) FROM hard.tuned;
ALTER STATISTICS hard."Stat s" SET STATISTICS 50;
INSERT INTO hard.tuned SELECT g, g::text, md5(g::text) FROM generate_series(1, 50) AS g;

-- Partitions ---------------------------------------------------------------------------------------------------
CREATE TABLE hard.events (id bigint GENERATED BY DEFAULT AS IDENTITY, at date NOT NULL, kind hard.mood, note text,
                          PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE hard.events_2025 PARTITION OF hard.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY RANGE (id);
CREATE TABLE hard."Events 2025 low" PARTITION OF hard.events_2025 FOR VALUES FROM (MINVALUE) TO (100) WITH (fillfactor = 60);
CREATE TABLE hard.events_2025_rest PARTITION OF hard.events_2025 DEFAULT PARTITION BY HASH (id);
CREATE TABLE hard.events_2025_rest_0 PARTITION OF hard.events_2025_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hard.events_2025_rest_1 PARTITION OF hard.events_2025_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE hard.events_other (note text, gone int, kind hard.mood, at date NOT NULL, id bigint NOT NULL);
ALTER TABLE hard.events_other DROP COLUMN gone;
ALTER TABLE hard.events ATTACH PARTITION hard.events_other DEFAULT;
CREATE TABLE hard.events_2024 PARTITION OF hard.events FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
CREATE INDEX ON hard.events (note, kind);
CREATE UNIQUE INDEX events_2024_only ON hard.events_2024 (note) WHERE note > 'n';
INSERT INTO hard.events (at, kind, note)
SELECT date '2024-12-01' + g % 500, CASE g % 4 WHEN 0 THEN NULL WHEN 1 THEN 'sad' ELSE 'so so' END::hard.mood, 'n' || g
  FROM generate_series(1, 600) AS g;
CREATE TABLE hard.by_mood (m hard.mood, n int) PARTITION BY HASH (m);
CREATE TABLE hard.by_mood_0 PARTITION OF hard.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE hard.by_mood_1 PARTITION OF hard.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE hard.by_mood_2 PARTITION OF hard.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO hard.by_mood SELECT (enum_range(NULL::hard.mood))[1 + g % 4], g FROM generate_series(1, 100) AS g;
CREATE TABLE hard.by_list (m hard.mood, n int, PRIMARY KEY (m)) PARTITION BY LIST (m);
CREATE TABLE hard.by_list_sad PARTITION OF hard.by_list FOR VALUES IN ('sad', '');
CREATE TABLE hard.by_list_rest PARTITION OF hard.by_list DEFAULT; INSERT INTO hard.by_list VALUES ('sad', 1), ('so so', 2);
CREATE TABLE hard.with_far (a int, b text) PARTITION BY LIST (b);
CREATE TABLE hard.with_far_null PARTITION OF hard.with_far FOR VALUES IN (NULL); INSERT INTO hard.with_far VALUES (1, NULL);
CREATE TABLE hard.no_partition (a int) PARTITION BY LIST (a);

-- Inheritance --------------------------------------------------------------------------------------------------
CREATE TABLE hard.parent (a int, b int DEFAULT 1, CONSTRAINT only_parent CHECK (a < 100) NO INHERIT,
                          CONSTRAINT everywhere CHECK (b > 0));
CREATE TABLE hard.other_parent (z text, b int);
CREATE TABLE hard.child (b int NOT NULL DEFAULT 2, c int, a int); INSERT INTO hard.parent VALUES (1, 2);
ALTER TABLE hard.child ADD CONSTRAINT everywhere CHECK (b > 0), INHERIT hard.parent;
CREATE TABLE hard.grandchild (d int) INHERITS (hard.child, hard.other_parent);
INSERT INTO hard.child (a, b, c) VALUES (1, 2, 3), (1000, 1, NULL);
INSERT INTO hard.grandchild (a, b, c, d, z) VALUES (5, 6, 7, 8, 'z');

-- Identity, generated columns, sequences -----------------------------------------------------------------------
CREATE TABLE hard.identities (
    id smallint GENERATED BY DEFAULT AS IDENTITY (START 32000 INCREMENT -3 MINVALUE -100 MAXVALUE 32000 CYCLE),
    n int, doubled int GENERATED ALWAYS AS (n * 2) STORED, words text GENERATED ALWAYS AS ('n' || n::text) STORED
);
INSERT INTO hard.identities (n) SELECT g FROM generate_series(1, 20) AS g;
CREATE SEQUENCE hard."Never Used" START 7;
CREATE SEQUENCE hard.down INCREMENT -2 START -5 MINVALUE -9223372036854775808; SELECT nextval('hard.down') FROM generate_series(1, 3);
CREATE SEQUENCE hard.big START 9223372036854775806 CACHE 1; SELECT nextval('hard.big') FROM generate_series(1, 2);
CREATE SEQUENCE hard.tiny AS smallint CYCLE CACHE 10; SELECT setval('hard.tiny', 32767, true);
CREATE SEQUENCE hard.set_back; SELECT setval('hard.set_back', 42, false);
CREATE SEQUENCE hard.owned OWNED BY hard.empty.a;
CREATE UNLOGGED SEQUENCE hard.unlogged_sequence; SELECT nextval('hard.unlogged_sequence');

-- Constraints --------------------------------------------------------------------------------------------------
CREATE TABLE hard.chicken (id int PRIMARY KEY, egg int);
CREATE TABLE hard.egg (id int PRIMARY KEY, chicken int REFERENCES hard.chicken DEFERRABLE INITIALLY DEFERRED);
INSERT INTO hard.chicken VALUES (1, 1), (2, NULL); INSERT INTO hard.egg VALUES (1, 1), (2, 2);
ALTER TABLE hard.chicken ADD CONSTRAINT "came from" FOREIGN KEY (egg) REFERENCES hard.egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE hard.tree (id int PRIMARY KEY, up int REFERENCES hard.tree ON DELETE CASCADE, UNIQUE (up, id) DEFERRABLE);
INSERT INTO hard.tree VALUES (3, NULL), (2, 3), (1, 2);
CREATE TABLE hard.booking (room int, during tsrange, EXCLUDE USING gist (during WITH &&) WHERE (room = 1) DEFERRABLE);
INSERT INTO hard.booking VALUES (1, '[2026-01-01,2026-01-02)'), (1, '[2026-01-02,2026-01-03)'), (2, '(,)'), (2, '(,)');
CREATE TABLE hard.not_valid (a int CHECK (a > 0), b int, t int, id int);
INSERT INTO hard.not_valid VALUES (1, -1, 99, 1);
ALTER TABLE hard.not_valid ADD CONSTRAINT later CHECK (b > 0) NOT VALID,
    ADD CONSTRAINT nowhere FOREIGN KEY (t) REFERENCES hard.tree NOT VALID;
CREATE TABLE hard.to_events (id bigint, at date, extra int,
    FOREIGN KEY (id, at) REFERENCES hard.events ON DELETE SET NULL (id));
INSERT INTO hard.to_events SELECT id, at FROM hard.events ORDER BY id LIMIT 5;

-- Functions, operators, aggregates, casts ----------------------------------------------------------------------
CREATE TABLE public.lookup (k text PRIMARY KEY, v int); INSERT INTO public.lookup VALUES ('a', 1), ('b', 2);
CREATE FUNCTION public.unqualified(k text) RETURNS int LANGUAGE sql STABLE AS 'SELECT v FROM lookup WHERE lookup.k = $1';
CREATE FUNCTION public.plain(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN abs(n) + 1; END $$;
CREATE FUNCTION public.careful(k text) RETURNS int LANGUAGE sql STABLE SET search_path = public, pg_temp
    AS 'SELECT v FROM lookup WHERE lookup.k = $1';
CREATE FUNCTION hard.standard(a int, b int DEFAULT nextval('hard.set_back')) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT a + b; SELECT count(*)::int FROM hard.tree; END;
CREATE FUNCTION hard.leaky() RETURNS SETOF hard.tree LANGUAGE sql SECURITY DEFINER COST 10 ROWS 5 LEAKPROOF PARALLEL SAFE
    SET work_mem = '1MB' AS 'TABLE hard.tree';
CREATE PROCEDURE hard.do_it(INOUT a int, VARIADIC b text[] DEFAULT '{}') LANGUAGE plpgsql AS $_$ BEGIN a := 1; END $_$;
CREATE FUNCTION hard.add_up(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + coalesce($2, 0)';
CREATE AGGREGATE hard.total(float8) (SFUNC = hard.add_up, STYPE = float8, INITCOND = '0', PARALLEL = SAFE);
CREATE AGGREGATE hard."Total of all"(ORDER BY float8) (SFUNC = hard.add_up, STYPE = float8, INITCOND = '0');
CREATE FUNCTION hard.alike(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT lower($1) = lower($2)';
CREATE OPERATOR hard.=== (FUNCTION = hard.alike, LEFTARG = text, RIGHTARG = text, COMMUTATOR = OPERATOR(hard.===), RESTRICT = eqsel);
CREATE OPERATOR FAMILY hard.fam USING btree;
CREATE OPERATOR CLASS hard.int_ops FOR TYPE int USING btree FAMILY hard.fam
    AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
CREATE INDEX by_own_class ON hard.tree (up hard.int_ops);
CREATE FUNCTION hard.to_mood(int) RETURNS hard.mood LANGUAGE sql IMMUTABLE AS 'SELECT (enum_range(NULL::hard.mood))[$1]';
CREATE CAST (int AS hard.mood) WITH FUNCTION hard.to_mood(int) AS ASSIGNMENT;
CREATE COLLATION hard."my C" FROM "C";
CREATE TEXT SEARCH DICTIONARY hard.dict (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION hard.search (COPY = english);
ALTER TEXT SEARCH CONFIGURATION hard.search ALTER MAPPING FOR asciiword WITH hard.dict;
CREATE TABLE hard.uses (a text COLLATE hard."my C" DEFAULT public.unqualified('a')::text, n int,
    search tsvector GENERATED ALWAYS AS (to_tsvector('hard.search', a)) STORED, CHECK (public.plain(n) > 0));
CREATE INDEX uses_plain ON hard.uses (public.plain(n));
CREATE INDEX ON hard.uses USING gin (search);
INSERT INTO hard.uses (n) SELECT g FROM generate_series(1, 10) AS g;

-- Views, rules, triggers ---------------------------------------------------------------------------------------
CREATE VIEW hard.tree_view WITH (security_barrier, security_invoker) AS SELECT t.*, t.up IS NULL AS root FROM hard.tree AS t;
CREATE VIEW hard.checked AS SELECT * FROM hard.chicken WHERE id > 0 WITH CASCADED CHECK OPTION;
CREATE VIEW hard.grouped AS SELECT c.*, count(e.*) AS eggs FROM hard.chicken AS c LEFT JOIN hard.egg AS e ON e.chicken = c.id GROUP BY c.id;
CREATE RECURSIVE VIEW hard.downwards (id, depth) AS
    SELECT id, 0 FROM hard.tree WHERE up IS NULL UNION ALL SELECT t.id, d.depth + 1 FROM hard.tree AS t JOIN downwards AS d ON t.up = d.id;
CREATE VIEW hard.asks_lookup AS SELECT public.unqualified(k) AS v FROM public.lookup;
CREATE FUNCTION hard.on_view() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO hard.tree VALUES (NEW.id, NEW.up); RETURN NEW; END $$;
CREATE TRIGGER instead INSTEAD OF INSERT ON hard.tree_view FOR EACH ROW EXECUTE FUNCTION hard.on_view();
CREATE TABLE hard.log (what text, n int);
CREATE RULE "also log" AS ON INSERT TO hard.duplicates WHERE new.a > 5 DO ALSO INSERT INTO hard.log VALUES ('dup', new.a);
CREATE RULE no_delete AS ON DELETE TO hard.duplicates DO INSTEAD NOTHING;
CREATE FUNCTION hard.log_it() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO hard.log VALUES (TG_OP || ' ' || TG_TABLE_NAME, 1); RETURN NULL; END $$;
CREATE TRIGGER "Log it!" AFTER INSERT OR UPDATE OF note ON hard.events FOR EACH ROW WHEN (NEW.id > 5) EXECUTE FUNCTION hard.log_it();
CREATE TRIGGER always AFTER INSERT ON hard.empty FOR EACH STATEMENT EXECUTE FUNCTION hard.log_it();
CREATE TRIGGER never AFTER DELETE ON hard.empty REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION hard.log_it();
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON hard.tuned DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hard.log_it();
CREATE TRIGGER on_every_row AFTER INSERT ON hard.tuned FOR EACH ROW EXECUTE FUNCTION hard.log_it();
ALTER TABLE hard.empty ENABLE ALWAYS TRIGGER always, DISABLE TRIGGER never;
ALTER TABLE hard.tuned ENABLE ALWAYS TRIGGER on_every_row;
CREATE MATERIALIZED VIEW hard.mv_base AS SELECT kind, count(*) AS n FROM hard.events GROUP BY kind;
CREATE UNIQUE INDEX ON hard.mv_base (kind);
CREATE VIEW hard.v_between AS SELECT n, kind::text AS kind FROM hard.mv_base;
CREATE MATERIALIZED VIEW hard.a_before_b AS SELECT sum(n) AS n FROM hard.v_between;
CREATE VIEW hard.v_top AS SELECT n, public.careful('a') AS v FROM hard.a_before_b;
CREATE MATERIALIZED VIEW hard."A top" AS SELECT * FROM hard.v_top;
CREATE MATERIALIZED VIEW hard.stale AS SELECT count(*) AS n FROM hard.empty;
CREATE MATERIALIZED VIEW hard.not_filled AS SELECT public.unqualified('b') AS one WITH NO DATA;
INSERT INTO hard.empty VALUES (1, 'after the refresh'); DELETE FROM hard.empty;

-- Row-level security -------------------------------------------------------------------------------------------
CREATE TABLE hard.secrets (owner name DEFAULT current_user, secret text);
INSERT INTO hard.secrets VALUES ('nobody', 'x'), ('hard_reader', 'y');
ALTER TABLE hard.secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "own rows" ON hard.secrets AS RESTRICTIVE FOR SELECT TO hard_reader, "Hard Owner" USING (owner = current_user);
CREATE POLICY everybody ON hard.secrets USING (true) WITH CHECK (secret <> '');

-- Large objects: empty, of several pages, sparse, with rights and a comment --------------------------------------
SELECT lo_from_bytea(4711, '\x010203'), lo_create(4712), lo_from_bytea(4713, convert_to(repeat('page', 3000), 'UTF8')),
       lo_create(4714), lo_create(4294967295);
SELECT lo_put(4714, 100000, '\xff');
ALTER LARGE OBJECT 4713 OWNER TO "Hard Owner";
GRANT SELECT, UPDATE ON LARGE OBJECT 4711 TO hard_reader;
COMMENT ON LARGE OBJECT 4714 IS 'sparse';

-- Foreign ------------------------------------------------------------------------------------------------------
CREATE FOREIGN DATA WRAPPER "no handler" OPTIONS (a 'b');
CREATE SERVER "Far away" TYPE 't' VERSION '1' FOREIGN DATA WRAPPER "no handler" OPTIONS (host 'nowhere');
CREATE USER MAPPING FOR "Hard Owner" SERVER "Far away" OPTIONS (password 'a mapping''s secret');
CREATE USER MAPPING FOR PUBLIC SERVER "Far away";
CREATE FOREIGN TABLE hard.far (a int OPTIONS (x 'y') NOT NULL, b text) SERVER "Far away" OPTIONS ("table" 'x');
CREATE FOREIGN TABLE hard.with_far_away PARTITION OF hard.with_far FOR VALUES IN ('x') SERVER "Far away";

-- Rights, comments, publications -------------------------------------------------------------------------------
ALTER TABLE hard.tree OWNER TO "Hard Owner"; ALTER TYPE hard.mood OWNER TO "Hard Owner";
ALTER FUNCTION hard.leaky() OWNER TO "Hard Owner"; ALTER MATERIALIZED VIEW hard.mv_base OWNER TO "Hard Owner";
GRANT USAGE ON SCHEMA hard TO hard_reader, PUBLIC; GRANT SELECT ON hard.events TO "Hard Owner";
GRANT SELECT ON ALL TABLES IN SCHEMA hard TO hard_reader WITH GRANT OPTION;
REVOKE ALL ON hard.duplicates FROM hard_reader;
GRANT UPDATE (a, b), REFERENCES (a) ON hard.tuned TO hard_reader;
GRANT INSERT, TRUNCATE, TRIGGER ON hard.tree TO PUBLIC; REVOKE TRIGGER ON hard.tree FROM "Hard Owner";
GRANT USAGE ON SEQUENCE hard.big TO hard_reader; GRANT USAGE ON TYPE hard.floatrange TO hard_reader;
REVOKE USAGE ON TYPE hard.positive FROM PUBLIC; REVOKE EXECUTE ON FUNCTION hard.leaky() FROM PUBLIC;
GRANT USAGE ON FOREIGN SERVER "Far away" TO hard_reader; GRANT USAGE ON LANGUAGE sql TO hard_reader;
REVOKE SELECT ON pg_catalog.pg_stat_activity FROM PUBLIC; GRANT SELECT ON pg_catalog.pg_stat_activity TO hard_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE "Hard Owner" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "Hard Owner" IN SCHEMA hard GRANT SELECT ON TABLES TO hard_reader WITH GRANT OPTION;
COMMENT ON SCHEMA "Sch ""q"" 100%s.x" IS 'it''s
-- Name: two lines; Type: TABLE';
COMMENT ON SCHEMA public IS 'another comment than the usual';
COMMENT ON TABLE hard.every_type IS 'every type'; COMMENT ON COLUMN hard.every_type.num IS '100%';
COMMENT ON TYPE hard.mood IS 'mood'; COMMENT ON DOMAIN hard.small IS 'small';
COMMENT ON CONSTRAINT "above zero" ON DOMAIN hard.positive IS 'c'; COMMENT ON CONSTRAINT "came from" ON hard.chicken IS 'c';
COMMENT ON INDEX hard.tuned_a IS 'i'; COMMENT ON TRIGGER "Log it!" ON hard.events IS 't'; COMMENT ON RULE no_delete ON hard.duplicates IS 'r';
COMMENT ON POLICY "own rows" ON hard.secrets IS 'p'; COMMENT ON FUNCTION hard.standard(int, int) IS 'f';
COMMENT ON AGGREGATE hard.total(float8) IS 'a'; COMMENT ON OPERATOR hard.=== (text, text) IS 'o'; COMMENT ON CAST (int AS hard.mood) IS 'c';
COMMENT ON SEQUENCE hard.big IS 's'; COMMENT ON MATERIALIZED VIEW hard."A top" IS 'm'; COMMENT ON VIEW hard.tree_view IS 'v';
COMMENT ON STATISTICS hard."Stat s" IS 's'; COMMENT ON SERVER "Far away" IS 's'; COMMENT ON ACCESS METHOD "Heap 2" IS 'am';
COMMENT ON COLUMN hard.address.street IS 'of a type';
CREATE PUBLICATION "Some tables" FOR TABLE hard.tree (id, up) WHERE (id > 0), hard.chicken WITH (publish = 'insert, update');
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA hard;

-- Event triggers; last, so that they log nothing of the above. They fire for REFRESH MATERIALIZED VIEW too. ----------
CREATE TABLE hard.ddl_log (tag text);
CREATE FUNCTION hard.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO hard.ddl_log VALUES (tg_tag); END $$;
CREATE EVENT TRIGGER "log DDL" ON ddl_command_end EXECUTE FUNCTION hard.on_ddl();
CREATE EVENT TRIGGER drops ON sql_drop WHEN TAG IN ('DROP TABLE', 'DROP INDEX') EXECUTE FUNCTION hard.on_ddl();
ALTER EVENT TRIGGER drops ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER drops IS 'e';
