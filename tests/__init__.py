"""The tests: they mirror the modules, and the acceptance tests run the real thing."""
