-- Row count of one table.
-- Parts: table (ONLY and its name, or a subquery). Needs SELECT.
SELECT count(*) AS row_count
  FROM {table} AS t;
