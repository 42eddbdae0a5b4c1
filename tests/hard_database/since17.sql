-- What came with PostgreSQL 17: login event triggers, identity in partitions, the builtin locale provider.
CREATE COLLATION hard.builtin (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE hard.built (a text COLLATE hard.builtin PRIMARY KEY); INSERT INTO hard.built VALUES ('é'), ('E');
CREATE TABLE hard.numbered (id int GENERATED ALWAYS AS IDENTITY, k int) PARTITION BY RANGE (k);
CREATE TABLE hard.numbered_1 PARTITION OF hard.numbered FOR VALUES FROM (0) TO (10);
INSERT INTO hard.numbered (k) VALUES (1), (2);
CREATE TABLE hard.logins (who name);
CREATE FUNCTION hard.on_login() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NOT pg_is_in_recovery() THEN INSERT INTO hard.logins VALUES (session_user); END IF; END $$;
CREATE EVENT TRIGGER "on login" ON login EXECUTE FUNCTION hard.on_login();
