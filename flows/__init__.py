"""The order of steps, nothing else: what each step does is in `tasks`, and how in `postroad`."""

import sys

from deployments.pool import create_pool_for_deploy

create_pool_for_deploy(sys.argv)
