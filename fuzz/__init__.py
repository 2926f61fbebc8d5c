"""Inputs from outside, made by a fuzzer: what each reader does with any bytes."""
