"""What several packages need: argument checks, complete files, the state of objects, threads and versions."""
