"""The ground floor: files, settings and safety. Nothing here knows of stages, tasks or models."""
