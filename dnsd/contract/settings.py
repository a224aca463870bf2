"""The node's settings: defaults, validation, environment overrides (DESIGN: command line).

Pure: a mapping and an environment in, a frozen `Settings` out, or `SettingsError` with every
problem at once. Reading the file is the caller's job. The shape is in `schemas/node.schema.json`.
"""
