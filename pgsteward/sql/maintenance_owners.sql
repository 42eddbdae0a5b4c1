-- Who owns the tables and materialized views, and whether this role has the owner's rights.
-- Parameters: none. Any role may run it. Any supported PostgreSQL.
SELECT pg_get_userbyid(c.relowner)::text                         AS owner,
       r.rolsuper                                                AS owner_is_superuser,
       pg_has_role(current_user, c.relowner, 'USAGE')            AS has_rights,
       count(*)                                                  AS relations,
       min(quote_ident(n.nspname) || '.' || quote_ident(c.relname)) AS example
  FROM pg_class AS c
       JOIN pg_namespace AS n ON n.oid = c.relnamespace
       LEFT JOIN pg_roles AS r ON r.oid = c.relowner
 WHERE c.relkind IN ('r', 'p', 'm')
   AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
 GROUP BY c.relowner, r.rolsuper
 ORDER BY owner;
