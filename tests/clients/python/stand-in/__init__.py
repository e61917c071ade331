"""Makes a package of kafka-python's tests, as they import each other."""
