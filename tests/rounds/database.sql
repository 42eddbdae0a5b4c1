-- What the rounds back up while it is written to: small, and of the types and shapes that make proofs go wrong.
-- Columns of the same name have the same type everywhere: tests/rounds/values.py knows how to fill each.
CREATE SCHEMA "the rounds";
SET search_path = "the rounds";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE place AS (street text, house int, height float8, mood mood);
CREATE DOMAIN price AS numeric CHECK (VALUE > -1e12);
CREATE DOMAIN places AS place[];
CREATE TYPE spread AS RANGE (subtype = float8);

CREATE TABLE kinds (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mood       mood,
    moods      mood[],
    n          numeric,
    n2         numeric(12, 4),
    cost       price,
    f4         float4,
    f8         float8,
    f8s        float8[],
    i2         int2,
    i4         int4,
    i8         int8,
    yes        bool,
    t          text,
    v          varchar(40),
    c          char(8),
    "One Char" "char",
    nam        name,
    js         json,
    jb         jsonb,
    tags       text[],
    place      place,
    places     places,
    spread     spread,
    r          int4range,
    mr         int4multirange,
    ts         timestamp,
    tstz       timestamptz,
    d          date,
    tm         time,
    tmz        timetz,
    iv         interval,
    u          uuid,
    b          bytea,
    ip         inet,
    net        cidr,
    mac        macaddr,
    pt         point,
    bits       bit varying,
    tsv        tsvector,
    m          money,
    o          oid,
    twice      numeric GENERATED ALWAYS AS (n * 2) STORED
);

CREATE SEQUENCE parts_id;
CREATE TABLE parts (id bigint DEFAULT nextval('parts_id'), i2 int2 NOT NULL, n numeric, f8 float8, t text)
    PARTITION BY RANGE (i2);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (10000);
CREATE TABLE parts_mid PARTITION OF parts FOR VALUES FROM (10000) TO (20000);
CREATE TABLE parts_high PARTITION OF parts DEFAULT;

CREATE SEQUENCE by_mood_id;
CREATE TABLE by_mood (id bigint DEFAULT nextval('by_mood_id'), mood mood NOT NULL, n numeric, tags text[])
    PARTITION BY HASH (mood);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);

CREATE SEQUENCE family_id;
CREATE TABLE parent (id bigint DEFAULT nextval('family_id'), n numeric, t text);
CREATE TABLE child (place place, t text, id bigint DEFAULT nextval('family_id'), n numeric);
ALTER TABLE child INHERIT parent;

CREATE TABLE lines (t text, mood mood, f8 float8);
CREATE UNLOGGED TABLE "Order ""Lines" (id serial PRIMARY KEY, cost price, jb jsonb);
CREATE TABLE documents (id serial PRIMARY KEY, content oid NOT NULL, v varchar(40));
CREATE TABLE accounts (id int PRIMARY KEY, balance numeric NOT NULL);
INSERT INTO accounts SELECT id, 100.00 FROM generate_series(1, 20) AS id;
CREATE TABLE moved (id bigint, sum numeric);
CREATE TABLE twins (
    id serial PRIMARY KEY, pair int NOT NULL, is_first bool NOT NULL, jb jsonb, iv interval, tmz timetz, js json, tags text[], t text, ip inet, tsv tsvector,
    r int4range, bits bit varying, b bytea, i8 int8, tm time, place place, f8 float8, pt point
);
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE never_filled (id int PRIMARY KEY, t text);
CREATE SEQUENCE "Free ""Seq" INCREMENT 3;
CREATE SEQUENCE downwards INCREMENT -1 MINVALUE -1000000000 MAXVALUE 1000000000 START 5;
CREATE SEQUENCE unused START 7;

CREATE MATERIALIZED VIEW totals AS SELECT mood, count(*) AS rows FROM lines GROUP BY mood;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO "the rounds".moved VALUES (new.id, new.balance - old.balance);
    RETURN NULL;
END $$;
CREATE TRIGGER note_change AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION note_change();
