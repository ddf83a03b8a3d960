"""What talks to MoEngage by way of one of Airflow's connections."""
