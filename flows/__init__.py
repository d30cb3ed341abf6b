"""The order of steps, nothing else: what each step does is in `tasks`, and how in `postroad`."""
