"""The workstation side of qvla: a checkpoint becomes sensitivities, gates and a mixed-bit bundle
(torch).
"""
