"""What the tests of all folders share: clocks, waiting, campaigns."""
