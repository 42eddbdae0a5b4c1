-- The relation itself and everything that inherits from it, as far down as it goes.
-- A partition that is being detached is no longer one of them; a temporary child is its own session's.
-- Parameters: oid (int8).
-- Needs no privilege. PostgreSQL 15+; MAINTAIN exists from 17 on.
  WITH RECURSIVE tree AS (
       SELECT %(oid)s::int8::oid AS oid
        UNION
       SELECT i.inhrelid
         FROM tree AS t
              JOIN pg_inherits AS i ON i.inhparent = t.oid
        WHERE NOT i.inhdetachpending
       )
SELECT c.oid::int8                                       AS oid,
       n.nspname                                         AS schema,
       c.relname                                         AS name,
       c.relkind::text                                   AS kind,
       o.rolname                                         AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE')    AS is_owner,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(c.oid, 'MAINTAIN')
            ELSE false
        END                                              AS has_maintain,
       pg_has_role(current_user, d.datdba, 'USAGE')      AS is_database_owner
  FROM tree AS t
       JOIN pg_class AS c ON c.oid = t.oid
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       JOIN pg_roles AS o ON o.oid = c.relowner
       JOIN pg_database AS d ON d.datname = current_database()
 WHERE c.relkind <> 'p'
   AND c.relpersistence <> 't'
 ORDER BY n.nspname, c.relname;
