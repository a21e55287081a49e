"""The image on disk: FORMAT.md, the schema (entries), the reader and the writer. Imports neither tracee nor host."""
