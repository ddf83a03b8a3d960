"""What needs Airflow, which is installed in an environment of its own: `.ci/run` has a job for it."""
