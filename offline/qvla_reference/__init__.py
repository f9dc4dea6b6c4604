"""The bundled policy: a small OpenVLA-OFT trained from nothing on demonstrations that a scripted
expert makes.
"""
