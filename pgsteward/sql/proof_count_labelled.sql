-- Row count of one table, without its inheritance children, labelled; several are joined by UNION ALL.
-- Parts: oid (its label), table (qualified name). Needs SELECT.
SELECT {oid}::int8 AS oid, count(*) AS row_count FROM ONLY {table}
