"""Gates of a mail queue: their names, the plan that merges the limits of all sources, and the controller."""
