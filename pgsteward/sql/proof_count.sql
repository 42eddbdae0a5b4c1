-- Row count of one table, without its inheritance children.
-- Parts: table (qualified name). Needs SELECT.
SELECT count(*) AS row_count
  FROM ONLY {table};
