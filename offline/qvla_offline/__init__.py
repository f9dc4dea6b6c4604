"""The workstation side (torch): turns a checkpoint into sensitivities, gates and a bundle."""
