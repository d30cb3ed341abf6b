"""What an operator does to mail on its way: pause, resume, cancel, replay, rebuild, resolve, unsubscribe."""
