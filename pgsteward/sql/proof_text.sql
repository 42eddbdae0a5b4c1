-- Method text-v1: row count and order-free content hash of one table, without its inheritance children.
-- Parts: table (ONLY and its name, or a subquery), cells (its columns as t."a", t."b"), seed_a, seed_b.
-- Needs SELECT. OFFSET 0 keeps the planner from building each row's text twice.
SELECT count(*)                                                       AS row_count,
       coalesce(sum(hashtextextended(q.row_text, {seed_a})), 0)::text AS hash_a,
       coalesce(sum(hashtextextended(q.row_text, {seed_b})), 0)::text AS hash_b
  FROM (SELECT ROW({cells})::text COLLATE "C" AS row_text
          FROM {table} AS t
        OFFSET 0) AS q
