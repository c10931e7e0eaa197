"""What the specification prints, for tests that load it as it is."""

# As the spec prints it, comments and all.
EXTRACTION = """\
sample_type: imp-click             # imp-click | click-conversion | imp-conversion, or a list: which heads are judged
logs_tables:
  ad:                              # the log; a table may also be given as {path: ..., format: parquet|csv|ndjson|iceberg|delta}
    last_hour: "2017-10-15T12:00:00"   # the last hour read, inclusive
    duration_hour: 24                  # how many hours are read; without both keys the whole log is
conditions:                        # filters, SQL boolean expressions over log columns, all must hold
  - billing_type = 1
  - is_application = 1
features: [ad_id, hour, spot_id]
remove_anomaly_cvr_cpns: true      # the historic spelling remove_anormaly_cvr_cpns is accepted too
performance_indicator_type: cpa    # cpc | cpa: picks the default bid formula
"""
