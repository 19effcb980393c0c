"""mm_platform: research, calibration and live trading for crypto market making in one loop. See docs/architecture.md."""
