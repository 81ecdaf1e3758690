#!/usr/bin/env python3
"""Placeholder while being written."""
print("0 passed, 0 failed")
