"""The workstation side of qvla: a checkpoint becomes sensitivities, gates, a mixed-precision graph and a bundle (torch)."""
