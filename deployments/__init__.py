"""What brings a Prefect server in line with ``prefect.yaml``, and checks that it is.

Each module is a program: ``python -m deployments.validate`` and so on; ``pgsteward`` calls them that way,
so that the library never imports Prefect.
"""
