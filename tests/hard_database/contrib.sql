-- What needs contrib modules: extension types, foreign tables that can be read, scalars in exclusion constraints.
CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION cube SCHEMA ext; CREATE EXTENSION seg SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext;
CREATE EXTENSION intarray SCHEMA ext; CREATE EXTENSION postgres_fdw SCHEMA ext; CREATE EXTENSION file_fdw SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE DOMAIN hard.email AS ext.citext CHECK (VALUE ~ '@');
CREATE TABLE hard.of_extensions (h ext.hstore, hs ext.hstore[], c ext.citext, e hard.email, cu ext.cube, s ext.seg, l ext.ltree);
INSERT INTO hard.of_extensions VALUES
('a=>1, "b c"=>NULL', '{"a=>1",NULL}', 'ABC', 'A@b', '(1,2),(3,4)', '1.0(+-)0.1', 'Top.Science'),
('', '{}', 'abc', 'a@B', '(0)', '~6.50', ''), (NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE INDEX ON hard.of_extensions USING gist (h); CREATE INDEX ON hard.of_extensions USING gin (c ext.gin_trgm_ops);
CREATE UNIQUE INDEX ON hard.of_extensions (e) WHERE e <> 'A@b';
CREATE TABLE hard.rooms (room int, during daterange, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO hard.rooms VALUES (1, '[2026-01-01,2026-02-01)'), (2, '[2026-01-01,2026-02-01)');
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'nowhere');
CREATE USER MAPPING FOR "Hard Owner" SERVER other OPTIONS (user 'u', password 'a mapping''s secret');
CREATE FOREIGN TABLE hard.remote (a int) SERVER other OPTIONS (table_name 't');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE hard.file (line text) SERVER files OPTIONS (filename '/dev/null');
CREATE MATERIALIZED VIEW hard.of_file AS SELECT count(*) AS lines FROM hard.file;
