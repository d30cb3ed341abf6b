"""Flows of Prefect: the order of steps. Each step is a task in `tasks`, which calls `postroad`."""

import sys

from deployments.pool import create_pool_for_deploy

create_pool_for_deploy(sys.argv)
