-- What came with PostgreSQL 18: temporal keys, virtual generated columns, constraints that are not enforced.
CREATE TABLE hard.temporal (id int4range, valid daterange NOT NULL, note text, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
INSERT INTO hard.temporal VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 'x'), ('[1,2)', '[2026-02-01,)', 'y'), ('[2,3)', '(,)', NULL);
CREATE TABLE hard.temporal_child (id int, parent int4range, valid daterange,
    FOREIGN KEY (parent, PERIOD valid) REFERENCES hard.temporal (id, PERIOD valid));
INSERT INTO hard.temporal_child VALUES (1, '[1,2)', '[2026-01-15,2026-03-01)');
CREATE TABLE hard.virtual (a int, doubled int GENERATED ALWAYS AS (a * 2) VIRTUAL, b text, upper_b text GENERATED ALWAYS AS (upper(b)), CHECK (doubled < 1000));
INSERT INTO hard.virtual (a, b) VALUES (1, 'x'), (2, NULL), (NULL, 'y');
CREATE TABLE hard.only_virtual (v int GENERATED ALWAYS AS (1)); INSERT INTO hard.only_virtual DEFAULT VALUES;
CREATE TABLE hard.not_enforced (a int CHECK (a > 0) NOT ENFORCED, t int, CONSTRAINT named_not_null NOT NULL t NO INHERIT);
ALTER TABLE hard.not_enforced ADD CONSTRAINT fk FOREIGN KEY (t) REFERENCES hard.tree NOT ENFORCED;
INSERT INTO hard.not_enforced VALUES (-1, 99);
CREATE TABLE hard.not_null_later (a int); INSERT INTO hard.not_null_later VALUES (NULL);
ALTER TABLE hard.not_null_later ADD CONSTRAINT later NOT NULL a NOT VALID;
CREATE COLLATION hard.unicode_fast (provider = builtin, locale = 'PG_UNICODE_FAST');
CREATE TABLE hard.fast (a text COLLATE hard.unicode_fast); INSERT INTO hard.fast VALUES ('ß');
