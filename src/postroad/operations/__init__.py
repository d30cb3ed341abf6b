"""What operators and recipients do to mail on its way: pause, cancel, replay, rebuild, resolve, unsubscribe."""
