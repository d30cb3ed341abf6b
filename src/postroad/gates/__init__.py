"""Gates of a mail queue: their names, the plan that merges what each source contributes, the controller."""
