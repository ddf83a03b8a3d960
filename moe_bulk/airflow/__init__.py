"""A provider for Airflow: a connection type, a hook and an operator that upload as the command line does.

Only `hooks` and `operators` import Airflow. What decides stands beside them, without it.
"""
