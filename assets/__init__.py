"""The Dagster shell around mm_platform: each asset loads settings, calls one workflow function, attaches metadata.

Asset names say layer and subject: `market__tape`, `model__sweep`. Science and storage live in `mm_platform`; nothing there imports Dagster.
"""
