"""Faults at random under thirty customers, and a comparison of what they read with what is kept (`make chaos`)."""
