"""What a run shows people: lines, tables, pictures and charts."""
