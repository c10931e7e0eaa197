"""The engine `spark`: the same SQL, translated, and the same Python, in the workers of a Spark session."""
