"""What a run shows people: log lines, tables, pictures and charts."""
