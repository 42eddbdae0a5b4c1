"""Statistics for the dashboards: a materialized view, a plain view of it, and a materialized view of that.

The unique indexes let both be refreshed concurrently. Like every deployment's, they start out empty:
the first night fills them.
"""

from alembic import op

revision = "m5f3d8c2a9e1"
down_revision = "k2e9b4a7c1d6"


def upgrade() -> None:
    # Applications are counted per job first: joined flat, they would weigh the average of the views.
    op.execute("""
        CREATE MATERIALIZED VIEW job_stats_summary AS
        SELECT j.employer_id,
               count(*)                               AS total_jobs,
               coalesce(sum(a.applications), 0)::int8 AS total_applications,
               avg(j.views_count)                     AS avg_views
          FROM jobs AS j
          LEFT JOIN (SELECT job_id,
                            count(*) AS applications
                       FROM job_applications
                      GROUP BY job_id) AS a ON a.job_id = j.id
         GROUP BY j.employer_id
          WITH NO DATA
    """)
    op.create_index("idx_job_stats_summary_employer_id", "job_stats_summary", ["employer_id"], unique=True)
    op.execute("""
        CREATE VIEW company_job_stats AS
        SELECT e.company_id,
               s.employer_id,
               s.total_jobs,
               s.total_applications
          FROM job_stats_summary AS s
          JOIN (SELECT DISTINCT employer_id, company_id FROM jobs) AS e ON e.employer_id = s.employer_id
    """)
    op.execute("""
        CREATE MATERIALIZED VIEW company_hiring_summary AS
        SELECT c.id                            AS company_id,
               c.industry,
               count(*)                        AS employers,
               sum(v.total_jobs)::int8         AS total_jobs,
               sum(v.total_applications)::int8 AS total_applications
          FROM companies AS c
          JOIN company_job_stats AS v ON v.company_id = c.id
         GROUP BY c.id, c.industry
          WITH NO DATA
    """)
    op.create_index(
        "idx_company_hiring_summary_company_id", "company_hiring_summary", ["company_id"], unique=True
    )


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW company_hiring_summary")
    op.execute("DROP VIEW company_job_stats")
    op.execute("DROP MATERIALIZED VIEW job_stats_summary")
