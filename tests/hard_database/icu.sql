-- What needs a server that was built with ICU.
CREATE COLLATION hard.ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION hard."German phone book" (provider = icu, locale = 'de-u-co-phonebk');
CREATE TABLE hard.collated (a text COLLATE hard.ignore_case PRIMARY KEY, b text COLLATE hard."German phone book", cs text[] COLLATE hard.ignore_case);
INSERT INTO hard.collated VALUES ('Aé', 'Ärger', '{A,a}'), ('b', 'Zar', '{}'), ('C', NULL, NULL);
CREATE INDEX ON hard.collated (b, a);
CREATE TABLE hard.by_case (a text COLLATE hard.ignore_case) PARTITION BY LIST (a);
CREATE TABLE hard.by_case_a PARTITION OF hard.by_case FOR VALUES IN ('a');
INSERT INTO hard.by_case VALUES ('a'), ('A');
