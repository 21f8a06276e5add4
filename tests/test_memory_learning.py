"""Tasks that need a memory across episodes, for minutes: `make test-slow`."""
