"""What every benchmark shares: variants, paired statistics, tables, processes; and benchmarks on any generator."""
