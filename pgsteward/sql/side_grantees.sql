-- Roles that default privileges have let into a new schema, its owner apart; NULL is PUBLIC.
-- Parameters: schema (text). Any role. Any supported PostgreSQL.
SELECT DISTINCT r.rolname::text AS role_name
  FROM pg_namespace AS n
 CROSS JOIN LATERAL aclexplode(n.nspacl) AS x
  LEFT JOIN pg_roles AS r ON r.oid = x.grantee
 WHERE n.nspname = %(schema)s
   AND x.grantee <> n.nspowner;
