-- Prefect has a database of its own. The image of PostgreSQL runs this once, for an empty volume.
CREATE DATABASE prefect;
