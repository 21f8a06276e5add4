"""Helpers that all packages share: argument checks, atomic files, plain state, threads, versions."""
